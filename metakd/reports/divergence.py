"""Predictions that are not finite: which tasks diverged."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["BEYOND", "answers", "are_finite", "diverged_tasks"]

BEYOND = 1e6
"""A squared error above this many times the variance of the targets counts as diverged, too."""


def are_finite(outputs: Tensor) -> Tensor:
    """Return for each prediction whether all of its numbers are finite.

    Args:
        outputs: [..., n], logits or predicted values.

    Returns:
        [...] bool.
    """
    return torch.isfinite(outputs).all(dim=-1)


def answers(logits: Tensor) -> Tensor:
    """Return the predicted class of each example, -1 where its logits are not finite.

    Args:
        logits: [..., classes].

    Returns:
        [...] int64.
    """
    # argmax takes a NaN among logits for the largest, which would make it a class.
    return torch.where(are_finite(logits), logits.argmax(dim=-1), -1)


def diverged_tasks(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return for each task whether any of its predictions is not finite.

    In regression a task has diverged, too, if its mean squared error is above `BEYOND` times the
    variance of the targets of all tasks.

    Args:
        outputs: [tasks, examples, classes] logits, or [tasks, examples, outputs] values.
        targets: [tasks, examples] int64, or as `outputs`, floating point.

    Returns:
        [tasks] bool.
    """
    diverged = ~are_finite(outputs).flatten(1).all(dim=1)
    if not targets.is_floating_point():
        return diverged
    values = targets.double()
    error = (outputs.double() - values).pow(2).flatten(1).mean(1)
    variance = values.var(correction=0)
    return diverged | ((error > BEYOND * variance) & (variance > 0))
