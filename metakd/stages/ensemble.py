"""Answers of several learners to the same tasks, averaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from metakd.stages.measurement import Measurement, task_values

__all__ = ["averaged"]

_SMALLEST = 1e-300
"""A probability below it has no logarithm in float64."""


def averaged(members: Sequence[Measurement], scales: Sequence[float]) -> Measurement:
    """Return what an ensemble reaches: mean probabilities, or mean predictions of numbers.

    p = 1/M Σ_m softmax(scale_m · logits_m) (Lakshminarayanan et al., 2017); its logits are log p.
    A member whose answer is not finite spoils the ensemble's.

    Args:
        members: measurements of the same tasks.
        scales: by which each member's logits are multiplied, so that none is heard for being the
            loudest; not used for numbers.

    Raises:
        ValueError: the tasks are not the same.
    """
    first = members[0]
    for other in members[1:]:
        same = torch.equal(first.targets, other.targets)
        if not (same and torch.equal(first.classes, other.classes)):
            raise ValueError("the members answered other tasks")
    if first.kind == "regression":
        logits = torch.stack([m.logits for m in members]).mean(0)
    else:
        logits = _mean_probability([m.logits for m in members], scales)
    modes = {m.batchnorm for m in members} - {None}
    return replace(
        first,
        values=task_values(logits, first.targets),
        steps=None,
        batchnorm=modes.pop() if modes else None,
        logits=logits,
    )


def _mean_probability(logits: Sequence[Tensor], scales: Sequence[float]) -> Tensor:
    """Return log p [..., ways] float32 of the mean probabilities."""
    found = [(s * x.double()).softmax(-1) for x, s in zip(logits, scales, strict=True)]
    return torch.stack(found).mean(0).clamp_min(_SMALLEST).log().float()
