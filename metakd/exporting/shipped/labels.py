"""Classes as a graph takes them."""

from __future__ import annotations

import numpy as np

__all__ = ["MOST_WAYS", "one_hot"]

MOST_WAYS = 1 << 16
"""Classes that a student may tell apart: bundle.json may claim more than there is memory for."""


def one_hot(labels: np.ndarray, width: int) -> np.ndarray:
    """Return labels [n] of classes as [n, width] float32."""
    found = np.zeros((len(labels), width), np.float32)
    found[np.arange(len(labels)), labels] = 1.0
    return found
