"""The card in the header of a file of weights, and heads that are matched by it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from metakd.data.preprocessing import Preprocessing
from metakd.models.card import KEY, Card
from metakd.models.class_head import match_head
from metakd.models.weights_file import WeightsFile

CARD = Card(
    Preprocessing(1, 4, 4, (0.1,), (0.2,)),
    "photos",
    classes=("elm", "oak", "\udcff été"),
    trained_on=("elm", "oak"),
    chosen_on=("yew",),
    tested_on=("ash",),
)


def test_a_card_comes_back_as_it_was() -> None:
    assert Card.from_header({"sha256": "x", **CARD.header()}) == CARD
    assert Card.from_header({"sha256": "x"}) is None
    assert Card.from_header(None) is None
    assert Card.from_header(Card(None).header()) == Card(None)


@pytest.mark.parametrize("text", ["[]", "{", '{"schema": 9}', '{"schema": 1, "classes": "elm"}'])
def test_a_damaged_card_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - JSON's own message is among them
        Card.from_header({KEY: text})


def file(outputs: int | None, card: Card | None) -> WeightsFile:
    tensors = {"backbone.a": torch.zeros(2)}
    if outputs is not None:
        tensors |= {"head.weight": torch.zeros(outputs, 2), "head.bias": torch.zeros(outputs)}
    return WeightsFile(tensors, card, str(Path("x")))


def test_heads_are_matched_by_name() -> None:
    assert match_head(file(3, CARD), ["oak", "elm"]).rows == (1, 0)
    unknown = match_head(file(3, CARD), ["oak", "yew", "fir"])
    assert unknown.rows is None
    assert "2 of the 3" in unknown.reason
    assert "'yew', 'fir'" in unknown.reason


def test_heads_without_names() -> None:
    assumed = match_head(file(2, None), ["oak", "yew"])
    assert assumed.rows == (0, 1)
    assert "in their order" in assumed.assumed
    assert match_head(file(5, None), ["oak", "yew"]).rows is None
    assert match_head(file(None, CARD), ["oak"]).reason == "the file holds no head"
    assert match_head(file(5, Card(None)), ["oak"]).rows is None  # of a learner that adapts
