"""Small made-up images whose pixels tell which image they are."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from metakd.data.class_examples import ClassExamples, PreparedData
from metakd.data.class_split import hold_out
from metakd.data.images import ImageData
from metakd.data.splits import SPLITS

MakeImages = Callable[..., ClassExamples]
MakeData = Callable[..., ImageData]


@pytest.fixture
def make_images() -> MakeImages:
    """Random images: `counts` images of each class; every image is different."""

    def make(counts: list[int], groups: list[int] | None = None, size: int = 8, channels: int = 1):
        labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
        generator = torch.Generator().manual_seed(sum(counts))
        shape = (len(labels), channels, size, size)
        images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        return ClassExamples(
            examples=images,
            labels=labels,
            class_names=tuple(f"class{c}" for c in range(len(counts))),
            groups=torch.tensor(groups or [0] * len(counts)),
            held_out=hold_out(labels, seed=0),
            group_names=tuple(f"group{g}" for g in range(max(groups or [0]) + 1)),
        )

    return make


@pytest.fixture
def make_data(make_images: MakeImages) -> MakeData:
    """The same images as every part of a dataset."""

    def make(
        counts: list[int],
        groups: list[int] | None = None,
        size: int = 8,
        channels: int = 1,
        augment: tuple[str, ...] = (),
        views: int = 1,
    ) -> ImageData:
        images = make_images(counts, groups, size, channels)
        return ImageData(PreparedData(dict.fromkeys(SPLITS, images), "made"), "cpu", augment, views)

    return make
