"""A number for each picture, by which the same picture is known again in another dataset."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from metakd.data.counter_random import bits_at, stream_key
from metakd.data.on_disk import touched

__all__ = ["NO_MARK", "picture_marks"]

NO_MARK = 0
"""Of a picture of one single colour, which says nothing."""
_CHUNK = 1024
_BYTES = 8


def picture_marks(images: Tensor) -> Tensor:
    """Return a 63-bit hash of each picture's pixels, [n] int64; `NO_MARK` for a plain one.

    Equal pictures have equal marks; two different ones share a mark by a chance of about 2^-63.

    Args:
        images: [n, channels, height, width] uint8.
    """
    flat = images.flatten(1)
    words = -(-flat.shape[1] // _BYTES)
    weights = bits_at(
        stream_key(0, "picture marks"), torch.arange(words, device=flat.device)
    ).bitwise_or(1)
    marks = []
    for part in flat.split(_CHUNK):
        marks.append(_marks(part, weights))
        touched(images, part.nbytes)
    return torch.cat(marks) if marks else torch.zeros(0, dtype=torch.int64, device=flat.device)


def _marks(flat: Tensor, weights: Tensor) -> Tensor:
    padded = F.pad(flat, (0, _BYTES * len(weights) - flat.shape[1])).contiguous()
    words = padded.view(torch.int64)
    # Mixed before they are added up: in a plain sum of products two changes could cancel out.
    mixed = (words ^ weights) * weights
    mixed = (mixed ^ ((mixed >> 32) & 0xFFFFFFFF)) * weights
    total = mixed.sum(dim=1) & 0x7FFFFFFFFFFFFFFF
    plain = flat.amin(dim=1) == flat.amax(dim=1)
    return torch.where(plain, NO_MARK, total.clamp(min=1))
