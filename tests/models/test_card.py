"""The card in the header of a file of weights, and heads that are matched by it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from metakd.data.picture_preprocessing import PicturePreprocessing
from metakd.models.card import KEY, Card, folder_mark
from metakd.models.class_head import match_head
from metakd.models.weights_file import WeightsFile

CARD = Card(
    PicturePreprocessing(1, 4, 4, (0.1,), (0.2,)),
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
    own = replace(CARD, folder=folder_mark(Path("mine")))
    assert Card.from_header(own.header()) == own
    assert folder_mark(Path("mine/../mine")) == own.folder != folder_mark(Path("yours"))
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
    assert match_head(file(3, CARD), ["oak", "elm"], "photos") == ((1, 0), "", "")
    unknown = match_head(file(3, CARD), ["oak", "yew", "fir"], "photos")
    assert unknown.rows is None
    assert "2 of the 3" in unknown.reason
    assert "'yew', 'fir'" in unknown.reason


def test_equal_names_of_another_dataset_are_no_equal_classes() -> None:
    """The "0" of MNIST is a digit, that of Fashion-MNIST a shirt."""
    other = match_head(file(3, CARD), ["oak", "elm"], "forests")
    assert other.rows is None
    assert "of dataset photos, and these are of forests" in other.reason
    assert "type teacher.same_classes=true" in other.reason
    said = match_head(file(3, CARD), ["oak", "elm"], "forests", same=True)
    assert said.rows == (1, 0)
    assert "of photos and forests" in said.assumed
    assert match_head(file(3, CARD), ["oak", "yew"], "forests", same=True).rows is None
    # Two folders of the user's own are two datasets, whatever both are called.
    mine = file(3, replace(CARD, folder="a"))
    assert match_head(mine, ["oak", "elm"], "photos", folder="a").rows == (1, 0)
    moved = match_head(mine, ["oak", "elm"], "photos", folder="b")
    assert moved.rows is None
    assert "over classes of dataset photos in another folder" in moved.reason
    assert match_head(mine, ["oak", "elm"], "photos", folder="b", same=True).rows == (1, 0)
    assert match_head(file(3, CARD), ["oak", "elm"], "photos", folder="b").rows == (1, 0)
    unsaid = match_head(file(3, replace(CARD, dataset="")), ["oak", "elm"], "photos")
    assert unsaid.rows == (1, 0)
    assert "does not say" in unsaid.assumed


def test_heads_without_names() -> None:
    assumed = match_head(file(2, None), ["oak", "yew"], "photos")
    assert assumed.rows == (0, 1)
    assert "in their order" in assumed.assumed
    assert match_head(file(5, None), ["oak", "yew"], "photos").rows is None
    assert match_head(file(None, CARD), ["oak"], "photos").reason == "the file holds no head"
    adapts = file(5, Card(None, "photos"))
    assert match_head(adapts, ["oak"], "photos").rows is None
