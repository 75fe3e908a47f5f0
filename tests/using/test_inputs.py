"""Pictures in every form that a user has them in, the same pixels each time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from metakd.data.picture_preprocessing import PicturePreprocessing
from metakd.data.preprocessing import Preprocessing
from metakd.errors import UserError
from metakd.using.inputs import numbers_of, pictures_of, pixels_of

COLOUR = PicturePreprocessing(3, 8, 8, (0.5,) * 3, (0.5,) * 3)
GREY = PicturePreprocessing(1, 8, 8, (0.5,), (0.5,))


@pytest.fixture
def picture() -> np.ndarray:
    """An RGB picture of 20 x 12 pixels."""
    return np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)


@pytest.mark.parametrize("wanted", [COLOUR, GREY], ids=["colour", "grey"])
def test_the_same_picture_in_every_form(
    picture: np.ndarray, wanted: Preprocessing, tmp_path: Path
) -> None:
    file = tmp_path / "a.png"
    Image.fromarray(picture).save(file)
    chw = torch.from_numpy(picture).permute(2, 0, 1)
    forms: list[Any] = [
        file,
        str(file),
        Image.fromarray(picture),
        picture,
        picture / 255.0,
        (picture / 255.0).astype(np.float32),
        chw,
        chw.float() / 255.0,
        picture[:, :, ::1],
    ]
    found = [pixels_of(pictures_of(form), wanted) for form in forms]
    found += list(pixels_of(forms, wanted).split(1))
    assert found[0].shape == (1, *wanted.shape)
    assert found[0].dtype == torch.uint8
    assert all(torch.equal(one, found[0]) for one in found[1:])
    assert found[0].float().std() > 10


def test_pictures_of_the_right_size_stay_as_they_are() -> None:
    pixels = torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8)
    assert torch.equal(pixels_of(pictures_of(pixels), GREY), pixels)
    arrays = pixels[:, 0].numpy()  # [n, height, width]
    assert torch.equal(pixels_of(pictures_of(arrays), GREY), pixels)
    assert torch.equal(pixels_of(pictures_of(arrays[..., None]), GREY), pixels)
    assert torch.equal(pixels_of(pictures_of(list(arrays)), GREY), pixels)
    assert torch.equal(pixels_of(pictures_of(arrays[0]), GREY), pixels[:1])


def test_the_middle_is_cut_out_of_arrays_as_of_files(tmp_path: Path) -> None:
    """Also where the picture already has the network's size; what was read stays as it is."""
    wanted = replace(GREY, central=0.5)
    array = np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8)
    Image.fromarray(array).save(tmp_path / "one.png")
    of_file = pixels_of([tmp_path / "one.png"], wanted)
    assert not torch.equal(of_file, torch.from_numpy(array)[None, None])
    for form in (array, array[..., None], Image.fromarray(array), *pictures_of(array[None])):
        assert torch.equal(pixels_of([form], wanted), of_file)
    assert torch.equal(pixels_of([*of_file], wanted), of_file)


def test_mixed_sizes_and_colours(picture: np.ndarray) -> None:
    found = pixels_of([picture, picture[:5, :5, 0], Image.new("RGBA", (30, 9), "red")], COLOUR)
    assert found.shape == (3, 3, 8, 8)
    assert found[2].flatten(1).float().mean(1).tolist() == [255, 0, 0]
    clear = np.zeros((8, 8, 4), np.uint8)  # black under full transparency
    assert pixels_of([clear], COLOUR).float().mean() == 255


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.full((8, 8), 1.5), "from 1.5 to 1.5; give numbers from 0 to 1"),
        (np.full((8, 8), np.nan), "from nan to nan"),
        (np.full((8, 8), -0.1), "from -0.1"),
        (np.zeros((8, 8), np.int64), "int64; give uint8"),
        (np.zeros((8, 8), bool), "bool; give uint8"),
        (np.zeros((8, 8, 3), np.complex64), "complex64"),
        (torch.zeros(3, 8, 8, dtype=torch.int32), "int32; give uint8"),
        (torch.zeros(8, 8), "give \\[channels, height, width\\]"),
        (np.zeros(8), "an array \\[8\\]"),
        (torch.zeros(1, 7, 8, 8, dtype=torch.uint8), "images of 1 to 4 channels"),
        (5, "int is no image"),
        ([5], "int is no image"),
        ([np.zeros((2, 8, 8, 3), np.uint8)], "no single image"),
        ("nowhere.png", "nowhere.png cannot be read"),
    ],
)
def test_refused(given: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        pixels_of(pictures_of(given), COLOUR)
    assert "\n" not in str(refused.value)


def test_no_picture_at_all() -> None:
    assert pixels_of(pictures_of([]), GREY).shape == (0, 1, 8, 8)


def test_numbers() -> None:
    assert numbers_of([1, 2, 3], (1,)).tolist() == [[1], [2], [3]]
    assert numbers_of(np.ones((4, 2)), (2,)).dtype == torch.float32
    assert numbers_of(torch.ones(4, 2, dtype=torch.float64), (2,)).shape == (4, 2)
    for wrong, message in (([1, np.inf], "finite"), ([[1, 2]], r"expected \[n, 1\]"), (["x"], "x")):
        with pytest.raises(UserError, match=message):
            numbers_of(wrong, (1,))
