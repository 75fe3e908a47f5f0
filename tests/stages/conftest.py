"""Tiny images whose class shows in their brightness pattern."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from metakd.data.class_examples import ClassExamples, PreparedData
from metakd.data.images import ImageData
from metakd.data.splits import SPLITS


def make_part(classes: int, per_class: int, seed: int) -> ClassExamples:
    """Return images [classes * per_class, 1, 8, 8]: a random pattern a class, and noise."""
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.randint(40, 216, (classes, 1, 8, 8), generator=generator)
    labels = torch.arange(classes).repeat_interleave(per_class)
    noise = torch.randint(-40, 40, (len(labels), 1, 8, 8), generator=generator)
    return ClassExamples(
        examples=(patterns[labels] + noise).clamp(0, 255).to(torch.uint8),
        labels=labels,
        class_names=tuple(f"{seed}/{c}" for c in range(classes)),
        groups=torch.zeros(classes, dtype=torch.int64),
        held_out=torch.arange(len(labels)) % per_class >= per_class - 2,
    )


@pytest.fixture
def tiny() -> ImageData:
    """8 meta-train, 6 meta-validation and 6 meta-test classes of 12 images each."""
    parts = {p: make_part(n, 12, i) for i, (p, n) in enumerate(zip(SPLITS, (8, 6, 6), strict=True))}
    return ImageData(PreparedData(parts, "tiny"))


class TinyBackbone(nn.Module):
    """Flatten and one layer; with `dropout`-free, norm-free arithmetic."""

    embedding_size = 16

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(64, 16)

    def forward(self, images: Tensor) -> Tensor:
        """Return embeddings [n, 16]."""
        return torch.relu(self.layer(images.flatten(1)))


@pytest.fixture
def backbone() -> nn.Module:
    """A backbone for `tiny`."""
    return TinyBackbone()
