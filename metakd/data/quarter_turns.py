"""Pictures turned by quarter turns, what a head beside the classifier learns to tell."""

from __future__ import annotations

import torch
from torch import Tensor

from metakd.data.counter_random import bits_at

__all__ = ["TURNS", "quarter_turns", "turned"]

TURNS = 4


def quarter_turns(key: int, index: Tensor) -> Tensor:
    """Return by how many quarter turns, 0 … 3, each picture is turned, [...] int64.

    Args:
        key: of the update.
        index: [...] int64, which picture it is; the turn depends on nothing else.
    """
    return bits_at(key, index) % TURNS


def turned(pictures: Tensor, turns: Tensor) -> Tensor:
    """Return square pictures turned anticlockwise.

    Args:
        pictures: [..., channels, side, side].
        turns: [...] int64, quarter turns of each picture.
    """
    if pictures.shape[-2] != pictures.shape[-1]:
        raise ValueError(f"pictures of {tuple(pictures.shape[-2:])} pixels are not square")
    found, which = pictures, turns[..., None, None, None]
    for quarter in range(1, TURNS):
        found = torch.where(which == quarter, torch.rot90(pictures, quarter, (-2, -1)), found)
    return found
