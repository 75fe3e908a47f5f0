"""The one number that turns a teacher's distances into probabilities, fitted by likelihood."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["LARGEST_SCALE", "SMALLEST_SCALE", "fit_scale"]

SMALLEST_SCALE, LARGEST_SCALE = 1e-3, 1e3


def fit_scale(logits: Tensor, targets: Tensor, *, smoothing: float = 0.0) -> float:
    """Return the scale s that maximises the likelihood of `targets` under softmax(s · logits).

    The mean log-likelihood is concave in s, so its derivative, the mean of z_y - E_s[z], falls
    monotonically: its zero is found by bisection over log s, to rounding. If it has none within
    [SMALLEST_SCALE, LARGEST_SCALE] (all examples are classified rightly, say, so that more is
    always better) the nearer end is returned.

    Examples whose logits are not finite have no likelihood at any scale; they are left out.

    Args:
        logits: [n, classes] at scale 1.
        targets: [n] int64.
        smoothing: share of each target that goes to the other classes, evenly. Above 0 there is a
            best scale also where all examples are classified rightly.

    Raises:
        ValueError: there is no example, or none whose logits are finite.
    """
    if not len(targets):
        raise ValueError("a scale cannot be fitted to no example at all")
    finite = torch.isfinite(logits).all(dim=-1)
    if not finite.any():
        raise ValueError("a scale cannot be fitted: no example has finite logits")
    z, targets = logits[finite].double(), targets[finite]
    # Differences to the target's logit: their sum loses no digits where all is nearly certain.
    ahead = z.gather(-1, targets.unsqueeze(-1)) - z
    others = max(1, z.shape[-1] - 1)
    taken = smoothing / others * float(ahead.sum(-1).mean()) if smoothing else 0.0

    def slope(log_scale: float) -> float:
        expected = (torch.softmax(math.exp(log_scale) * z, dim=-1) * ahead).sum(-1).mean()
        return float(expected) - taken

    low, high = math.log(SMALLEST_SCALE), math.log(LARGEST_SCALE)
    for _ in range(50):
        middle = (low + high) / 2
        if slope(middle) >= 0.0:
            low = middle
        else:
            high = middle
    return math.exp((low + high) / 2)
