"""Encoders from elsewhere: their view of pictures, a library or weights that are missing."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch

from metakd.data.features import FeaturePreprocessing
from metakd.data.picture_preprocessing import PicturePreprocessing, Reading
from metakd.errors import UserError
from metakd.models import outside
from metakd.models.outside import OwnView, in_colour, library, weights_of

GIVEN = PicturePreprocessing(1, 28, 20, (0.1,), (0.2,), Reading(crop=False))
SAID = {"image_size": 96, "mean": (0.5,) * 3, "std": (0.25,) * 3, "crop": 0.9}


def test_as_the_network_says_and_as_it_is_typed() -> None:
    found = OwnView().of(GIVEN, {**SAID, "interpolation": "bicubic"}, "it")
    assert found == PicturePreprocessing(
        3, 96, 96, (0.5,) * 3, (0.25,) * 3, Reading(crop=False), "bicubic", 0.9
    )
    typed = OwnView(
        image_size=64, crop=1.0, interpolation="bilinear", mean=[0, 0, 0], std=[1, 1, 1]
    )
    assert typed.of(GIVEN, SAID, "it") == PicturePreprocessing(
        3, 64, 64, (0.0,) * 3, (1.0,) * 3, Reading(crop=False)
    )
    unsaid = OwnView(mean=[0, 0, 0], std=[1, 1, 1]).of(GIVEN, {}, "it")
    assert unsaid.shape == (3, 28, 20)  # the data's own size


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ({"image_size": "big"}, "options.image_size=big: give a number of pixels"),
        ({"image_size": 0}, "give a number of pixels"),
        ({"interpolation": "cubic"}, "Did you mean 'bicubic'"),
        ({"mean": [1, 2]}, "three numbers"),
        ({"mean": 0.5}, "three numbers"),
        ({"std": [1, 0, 1]}, "std must be positive"),
        ({"crop": 2}, "crop is above 0"),
    ],
)
def test_values_that_cannot_be(typed: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        OwnView(**typed).of(GIVEN, SAID, "it")


def test_what_nobody_says_has_to_be_typed() -> None:
    with pytest.raises(UserError, match=r"it does not say.*type options.mean="):
        OwnView().of(GIVEN, {"image_size": 96}, "it")


def test_columns_are_no_pictures() -> None:
    columns = FeaturePreprocessing(("a", "b"), (0.0, 0.0), (1.0, 1.0))
    with pytest.raises(UserError, match="it takes grey or colour pictures"):
        OwnView().of(columns, SAID, "it")


def test_a_library_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(
        UserError, match=r"needs timm, .*: type pip install 'metakd\[timm\]'"
    ) as told:
        library("timm", "timm")
    assert "\n" not in str(told.value)


def test_weights_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def load() -> None:
        raise OSError("no network\nand a long story")

    monkeypatch.setattr(outside, "_answers", lambda address: True)
    with pytest.raises(UserError, match=r"weights of x cannot be had \(no network\); name a file"):
        weights_of(load, "x", "name a file")


def test_a_hub_that_does_not_answer_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    constants = pytest.importorskip("huggingface_hub.constants", reason="metakd[timm] brings it")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    assert weights_of(lambda: constants.HF_HUB_OFFLINE, "x", "")
    assert not constants.HF_HUB_OFFLINE


def test_grey_as_colour() -> None:
    grey = torch.randn(2, 1, 3, 3)
    assert torch.equal(in_colour(grey), grey.repeat(1, 3, 1, 1))
    assert in_colour(in_colour(grey)).shape == (2, 3, 3, 3)
