"""Whole datasets of equally large images to another size."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["resized"]


def resized(images: Tensor, size: int | None) -> Tensor:
    """Return `images` at `size` x `size` pixels (bilinear, antialiased).

    Args:
        images: [n, channels, height, width] uint8.
        size: None keeps the images' own.

    Returns:
        [n, channels, size, size] uint8.
    """
    if size is None or images.shape[-2:] == (size, size):
        return images
    parts = [
        F.interpolate(part.float(), size=(size, size), mode="bilinear", antialias=True)
        .round_()
        .clamp_(0, 255)
        .to(torch.uint8)
        for part in images.split(2048)  # in float32 the whole would take four times the memory
    ]
    return torch.cat(parts)
