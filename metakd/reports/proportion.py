"""Confidence interval of a proportion."""

from __future__ import annotations

import math

__all__ = ["wilson95"]

_NORMAL_975 = 1.959963984540054


def wilson95(right: int, of: int) -> tuple[float, float]:
    """Return both ends of Wilson's 95 % score interval for a share (Wilson, 1927).

    It stays within 0 and 1, and is meaningful for 0 and 1, too.

    Args:
        right: how often it happened.
        of: number of trials, independent of each other.

    Raises:
        ValueError: no trial, or more happened than were tried.
    """
    if not 0 <= right <= of or of < 1:
        raise ValueError(f"{right} of {of} is no share")
    z2 = _NORMAL_975**2
    share = right / of
    middle = (share + z2 / (2 * of)) / (1 + z2 / of)
    half = _NORMAL_975 / (1 + z2 / of) * math.sqrt(share * (1 - share) / of + z2 / (4 * of * of))
    return max(0.0, middle - half), min(1.0, middle + half)
