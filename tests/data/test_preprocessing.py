"""Preprocessing: what a network expects of its input, to the last bit and by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from metakd.data.picture_preprocessing import PicturePreprocessing, Reading
from metakd.data.preprocessing import Preprocessing

GREY = PicturePreprocessing(1, 4, 4, (0.25,), (0.5,))
COLOUR = PicturePreprocessing(3, 4, 4, (0.1, 0.2, 0.3), (0.5, 0.25, 1.0))


def test_normalised_by_hand() -> None:
    pixels = torch.tensor([[[[0, 255]]], [[[51, 102]]]], dtype=torch.uint8)
    shown = PicturePreprocessing(1, 1, 2, (0.25,), (0.5,)).normalize(pixels)
    assert shown.flatten().tolist() == pytest.approx([-0.5, 1.5, -0.1, 0.3])


def test_json_gives_the_same_floats() -> None:
    given = PicturePreprocessing(
        3, 5, 7, (0.1, 1 / 3, 0.7), (0.2, 1 / 7, 1.0), Reading(False, 9, 4095.0)
    )
    assert Preprocessing.from_plain(json.loads(json.dumps(given.plain()))) == given


@pytest.mark.parametrize(
    "change",
    [
        {"channels": 2},
        {"height": 0},
        {"mean": [0.1]},
        {"std": [0.5, 0.0, 1.0]},
        {"std": "abc"},
        {"reading": None},
        {"mean": None},
    ],
)
def test_damage_is_noticed(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="not a preprocessing"):
        Preprocessing.from_plain(COLOUR.plain() | change)
    with pytest.raises(ValueError, match="not a preprocessing"):
        Preprocessing.from_plain(["no"])


def test_colours_become_grey_as_in_pillow() -> None:
    random = np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8)
    pixels = torch.from_numpy(random).permute(2, 0, 1)[None]
    grey = GREY.fit(pixels)[0, 0].int()
    wanted = torch.from_numpy(np.array(Image.fromarray(random).convert("L"))).int()
    assert (grey - wanted).abs().max() <= 1  # Pillow rounds in integers
    assert torch.equal(COLOUR.fit(GREY.fit(pixels)), GREY.fit(pixels).expand(-1, 3, -1, -1))
    with pytest.raises(ValueError, match="2 channels cannot become images of 3"):
        COLOUR.fit(torch.zeros(1, 2, 4, 4, dtype=torch.uint8))


def test_sizes_are_changed_after_the_middle_is_cut_out() -> None:
    wide = torch.zeros(1, 1, 8, 16, dtype=torch.uint8)
    wide[..., 4:12] = 200
    assert GREY.fit(wide).unique().tolist() == [200]
    squeezed = PicturePreprocessing(1, 4, 4, (0.0,), (1.0,), Reading(crop=False)).fit(wide)
    assert squeezed[0, 0, 0, 0] < 100 < squeezed[0, 0, 0, 1]
    assert GREY.fit(wide[:0]).shape == (0, 1, 4, 4)
    same = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    assert GREY.fit(same) is same
