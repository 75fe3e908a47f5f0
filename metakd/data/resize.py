"""Whole datasets of equally large images to another size."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from metakd.data.on_disk import joined

__all__ = ["resize_chunks", "resized"]

_NUMBERS = 1 << 24  # pixels of a chunk: 64 MiB in float32


def resize_chunks(images: Tensor, numbers: int) -> tuple[Tensor, ...]:
    """Divide images that become float32 pictures of `numbers` pixels each: little at a time."""
    return images.split(max(1, _NUMBERS // max(1, numbers)))


def resized(images: Tensor, size: int | None) -> Tensor:
    """Return `images` at `size` x `size` pixels (bilinear, antialiased).

    Args:
        images: [n, channels, height, width] uint8.
        size: None keeps the images' own; what is too large for memory lies in a file
            (`metakd.data.on_disk.large_in`).

    Returns:
        [n, channels, size, size] uint8.
    """
    if size is None or images.shape[-2:] == (size, size):
        return images
    shape = (*images.shape[:2], size, size)
    parts = (
        F.interpolate(part.float(), size=(size, size), mode="bilinear", antialias=True)
        .round_()
        .clamp_(0, 255)
        .to(torch.uint8)
        for part in resize_chunks(images, shape[1] * max(size * size, images[0, 0].numel()))
    )
    return joined(parts, shape)
