"""Tiny images and what the tests of use share."""

from __future__ import annotations

import pytest
import torch

from metakd.data.images import PARTS, ClassImages, ImageData, PreparedImages


def make_part(classes: int, per_class: int, seed: int) -> ClassImages:
    """Return images [classes * per_class, 1, 12, 12]: a random pattern a class, and noise."""
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.randint(40, 216, (classes, 1, 12, 12), generator=generator)
    labels = torch.arange(classes).repeat_interleave(per_class)
    noise = torch.randint(-90, 90, (len(labels), 1, 12, 12), generator=generator)
    return ClassImages(
        images=(patterns[labels] + noise).clamp(0, 255).to(torch.uint8),
        labels=labels,
        class_names=tuple(f"{seed}/{c}" for c in range(classes)),
        groups=torch.zeros(classes, dtype=torch.int64),
        held_out=torch.zeros(len(labels), dtype=torch.bool),
    )


@pytest.fixture(scope="session")
def tiny() -> ImageData:
    """8 meta-train, 6 meta-validation and 6 meta-test classes of 12 images each."""
    parts = {p: make_part(n, 12, i) for i, (p, n) in enumerate(zip(PARTS, (8, 6, 6), strict=True))}
    return ImageData(PreparedImages(parts, "tiny"))
