"""Optimisers and learning-rate schedules by name; a schedule is a pure function of the step."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from metakd.adaptation.lean_optimizers import lean

__all__ = ["Optimization", "make_optimizer"]


@dataclass(frozen=True)
class Optimization:
    """How a stage descends its loss.

    Attributes:
        optimizer: `sgd` (momentum 0.9, Nesterov), `plain_sgd`, `adam`, `adamw`.
        lr: peak learning rate.
        weight_decay: L2 penalty (decoupled for `adamw`); not applied to biases and norms.
        schedule: `constant`, `cosine` (to 0), `one_cycle` (linear rise over the first quarter
            from a tenth, then cosine to 0), `linear` (to 0), `step` (halved every `halve_every`),
            `milestones` (times `milestone_factor` at each of `milestones`).
        halve_every: steps between halvings (`step`).
        milestones: shares of the stage's updates (`milestones`).
        milestone_factor: of the rate, at each of them.
        clip: each gradient entry is clipped to ± this value; None: not clipped.
        skip_nonfinite: so many updates may be skipped because their loss or gradient is not
            finite, before the stage fails.
        ema: decay of the average of weights that is validated and kept (`WeightAverage`); 0: the
            weights themselves are.
    """

    optimizer: str = "adam"
    lr: float = 1e-3
    weight_decay: float = 0.0
    schedule: str = "constant"
    halve_every: int | None = None
    milestones: Sequence[float] = ()
    milestone_factor: float = 0.1
    clip: float | None = None
    skip_nonfinite: int = 0
    ema: float = 0.0

    def rate(self, step: int, steps: int) -> float:
        """Return the learning rate of update `step` (0-based) of `steps`."""
        done = step / max(steps, 1)
        if self.schedule == "constant":
            return self.lr
        if self.schedule == "linear":
            return self.lr * (1 - done)
        if self.schedule == "cosine":
            return self.lr * 0.5 * (1 + math.cos(math.pi * done))
        if self.schedule == "one_cycle":
            rise = 0.25
            if done < rise:
                return self.lr * (0.1 + 0.9 * done / rise)
            return self.lr * 0.5 * (1 + math.cos(math.pi * (done - rise) / (1 - rise)))
        if self.schedule == "step":
            return self.lr * 0.5 ** (step // (self.halve_every or steps))
        if self.schedule == "milestones":
            # A product such as 0.7 · 10 may miss the step by a rounding.
            passed = sum(step >= share * steps - 1e-6 for share in self.milestones)
            return self.lr * self.milestone_factor**passed
        raise ValueError(f"unknown schedule '{self.schedule}'")


def make_optimizer(
    modules: Collection[nn.Module],
    how: Optimization,
    apart: Collection[int] = (),
    factors: Mapping[int, float] = {},
) -> torch.optim.Optimizer:
    """Return an optimiser over all parameters of `modules` that require a gradient.

    Those whose `id` is in `apart` are left out: they have an optimiser of their own. A group's
    `factor` is what its rate is multiplied by, by the `id` of a parameter in `factors`.

    Weight decay applies to weights of two and more dimensions only: decaying biases and the
    scales of norms costs accuracy and regularises nothing. Modules with `decays = False` (learned
    rates and matrices of an update rule) are spared, too.
    """
    parameters = [
        p for m in modules for p in m.parameters() if p.requires_grad and id(p) not in apart
    ]
    spared = {
        id(p)
        for m in modules
        for part in m.modules()
        if not getattr(part, "decays", True)
        for p in part.parameters()
    }
    decayed = [p for p in parameters if p.ndim > 1 and id(p) not in spared]
    others = [p for p in parameters if p.ndim <= 1 or id(p) in spared]
    groups: list[dict[str, Any]] = []
    for chosen, decay in ((decayed, how.weight_decay), (others, 0.0)):
        by_factor: dict[float, list[nn.Parameter]] = {}
        for p in chosen:
            by_factor.setdefault(factors.get(id(p), 1.0), []).append(p)
        groups += [
            {"params": found, "weight_decay": decay, "factor": factor}
            for factor, found in by_factor.items()
        ]
    if how.optimizer == "sgd":
        return lean(torch.optim.SGD)(groups, lr=how.lr, momentum=0.9, nesterov=True)
    if how.optimizer == "plain_sgd":
        return lean(torch.optim.SGD)(groups, lr=how.lr)
    if how.optimizer == "adam":
        return lean(torch.optim.Adam)(groups, lr=how.lr)
    if how.optimizer == "adamw":
        return lean(torch.optim.AdamW)(groups, lr=how.lr)
    raise ValueError(f"unknown optimizer '{how.optimizer}'")
