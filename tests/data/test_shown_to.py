"""Examples shown to another network than the student: the same views, in its own form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from metakd.data.class_examples import ClassExamples, PreparedData
from metakd.data.images import ImageData
from metakd.data.picture_preprocessing import PicturePreprocessing

HALF = (0.5, 0.5, 0.5)


def smooth(size: int, n: int = 6) -> Tensor:
    """Pictures without detail, so that each size shows the same."""
    draw = torch.Generator().manual_seed(0)
    coarse = 64 + 128 * torch.rand(n, 3, 4, 4, generator=draw)
    found = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic")
    return found.round().clamp(0, 255).to(torch.uint8)


def data_at(size: int, preprocessing: PicturePreprocessing | None = None) -> ImageData:
    labels = torch.arange(2).repeat_interleave(3)
    splits = {
        split: ClassExamples(
            smooth(size), labels, (f"{split}a", f"{split}b"), torch.zeros(2).long(), labels < 0
        )
        for split in ("train", "validate", "test")
    }
    return ImageData(
        PreparedData(splits, "some"),
        augment=("crop", "flip", "jitter"),
        views=4,
        preprocessing=preprocessing,
    )


def test_the_same_views_as_the_student_s() -> None:
    data = data_at(16)
    expects = PicturePreprocessing(3, 32, 32, HALF, HALF, interpolation="bicubic")
    shown, index = data.shown_to(expects), torch.tensor([0, 1, 5, 5])
    view = torch.tensor([0, 2, 1, 3])
    seen = shown.examples("train", index, view)
    assert seen.shape == (4, *shown.example_shape) == (4, 3, 32, 32)
    assert torch.equal(
        seen, expects.converted(data.examples("train", index, view), data.preprocessing)
    )
    assert not torch.equal(seen[2], seen[3])  # a view is no other view
    assert torch.equal(
        data.examples("train", index).mean(), data_at(16).examples("train", index).mean()
    )
    assert data.example_shape == (3, 16, 16)  # the student's is what it was
    assert data.shown_to(data.preprocessing) is data
    assert torch.equal(
        data.shown_to(expects).fresh_examples("train", index, 7).mean(),
        expects.converted(data.fresh_examples("train", index, 7), data.preprocessing).mean(),
    )


def test_larger_files_show_the_same_changes() -> None:
    """Read at three times the size, a view is what the student sees, up to a pixel of its own."""
    small, large = data_at(32), data_at(96)
    unit = PicturePreprocessing(3, 96, 96, (0.0,) * 3, (1.0,) * 3)
    plain = PicturePreprocessing(3, 32, 32, (0.0,) * 3, (1.0,) * 3)
    index, other = torch.arange(6), torch.arange(6).roll(1)
    for view in range(4):
        which = torch.full_like(index, view)
        own = large.shown_to(unit).examples("train", index, which)
        theirs = plain.converted(own, unit)
        student = small.shown_to(plain).examples("train", index, which)
        middle = (..., slice(6, 26), slice(6, 26))  # the padding is cut at other pixels
        apart = (theirs - student)[middle].abs().mean((1, 2, 3))
        assert apart.max() < 0.04
        assert (theirs - student[other])[middle].abs().mean() > 3 * apart.max()


def test_bicubic_scaling_is_pillow_s() -> None:
    pixels = smooth(8, 1)
    given = PicturePreprocessing(3, 8, 8, (0.0,) * 3, (1.0,) * 3)
    wanted = PicturePreprocessing(3, 20, 20, (0.0,) * 3, (1.0,) * 3, interpolation="bicubic")
    ours = wanted.converted(given.normalize(pixels), given)[0] * 255
    picture = Image.fromarray(pixels[0].permute(1, 2, 0).numpy())
    theirs = np.asarray(picture.resize((20, 20), Image.Resampling.BICUBIC), dtype=np.float32)
    assert (ours.permute(1, 2, 0).numpy() - theirs).__abs__().max() < 1.01
    edge = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    edge[..., 4:] = 255
    sharp = wanted.converted(given.normalize(edge), given)
    assert sharp.min() >= 0
    assert sharp.max() <= 1


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_the_middle_is_cut_out(interpolation: str) -> None:
    given = PicturePreprocessing(3, 16, 16, (0.0,) * 3, (1.0,) * 3)
    half = PicturePreprocessing(
        3, 8, 8, (0.0,) * 3, (1.0,) * 3, interpolation=interpolation, central=0.5
    )
    pixels = smooth(16)
    images = given.normalize(pixels)
    assert torch.equal(half.converted(images, given), images[..., 4:12, 4:12])
    assert torch.equal(half.fit(pixels), pixels[..., 4:12, 4:12])
    assert half.differs(given)
    uncut = half.uncut()
    assert (uncut.shape, uncut.central) == ((3, 16, 16), 1.0)
    assert PicturePreprocessing.from_plain(half.plain()) == half


def test_what_cannot_be_is_refused() -> None:
    for wrong in ({"interpolation": "nearest"}, {"central": 0.0}, {"central": 1.5}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            PicturePreprocessing(3, 8, 8, HALF, HALF, **wrong)
