"""A proposer trained by episodes: some of a task's strategies are its support set, the rest asked.

As at its use, the support set has from no strategy to `MOST_SUPPORT` of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from metakd.algorithms.ridge import ridge_weights
from metakd.compression.description import FEATURES, NetworkDescription
from metakd.compression.proposer import Proposer
from metakd.compression.space import Candidates

__all__ = ["EvaluatedTask", "train_proposer"]

MOST_SUPPORT = 10
STEPS = 150
LEARNING_RATE = 5e-3
WEIGHT_DECAY = 1.0


@dataclass(frozen=True)
class EvaluatedTask:
    """A compression task and its evaluated strategies.

    Attributes:
        network: what is made smaller.
        uniform: the uniform strategy, one candidate.
        candidates: others.
        values: [n] accuracy of each less that of the uniform strategy.
    """

    network: NetworkDescription
    uniform: Candidates
    candidates: Candidates
    values: Tensor


def train_proposer(tasks: Sequence[EvaluatedTask], seed: int = 0, steps: int = STEPS) -> Proposer:
    """Return a proposer trained on evaluated tasks.

    Each member weighs the tasks in proportions of its own (Bayesian bootstrap, Rubin, 1981).

    Args:
        tasks: of several networks and budgets, at least two.
        seed: of proportions and episodes.
        steps: updates; each sees every task once.
    """
    generator = torch.Generator().manual_seed(seed)
    proposer = Proposer()
    layers = torch.cat([t.network.features(t.candidates).flatten(0, 1) for t in tasks])
    proposer.mean.copy_(layers.mean(0))
    # A number that is the same in all of them says nothing about others.
    spread = layers.std(0)
    proposer.deviation.copy_(torch.where(spread > 1e-6, spread, torch.ones(FEATURES)))
    most = max(len(t.values) for t in tasks)
    points = torch.zeros(len(tasks), most, FEATURES)
    values, known = torch.zeros(len(tasks), most), torch.zeros(len(tasks), most, dtype=torch.bool)
    for i, task in enumerate(tasks):
        origin = proposer.embed(task.network.features(task.uniform))
        n = len(task.values)
        points[i, :n] = proposer.embed(task.network.features(task.candidates)) - origin
        values[i, :n], known[i, :n] = task.values.float(), True
    proposer.scale.copy_(values[known].std().clamp_min(1e-6))
    goals = values / proposer.scale
    shares = -torch.rand(len(proposer.prior), len(tasks), generator=generator).clamp_min(1e-6).log()
    optimizer = torch.optim.AdamW(proposer.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        support = _support(known, generator)
        errors = _errors(proposer, points, goals, support)
        weights = shares[:, :, None] * (known & ~support)
        loss = (errors * weights).sum() / weights.sum().clamp_min(1e-6)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return proposer.eval()


def _support(known: Tensor, generator: torch.Generator) -> Tensor:
    """Draw a support set of each task, [tasks, n] bool: at most half of its strategies."""
    count = torch.randint(0, MOST_SUPPORT + 1, (len(known), 1), generator=generator)
    count = torch.minimum(count, known.sum(1, keepdim=True) // 2)
    order = torch.rand(known.shape, generator=generator).masked_fill(~known, 2.0)
    return order.argsort(1).argsort(1) < count


def _errors(proposer: Proposer, points: Tensor, goals: Tensor, support: Tensor) -> Tensor:
    """Return the error of each strategy's value once the support is known, [members, tasks, n]."""
    shown = points * support[..., None]  # a row of zeros changes no solution
    found = []
    for prior in proposer.prior:
        left = (goals[..., None] - points @ prior) * support[..., None]
        weights = prior + ridge_weights(shown, left, proposer.log_penalty.exp())
        predicted = (points @ weights)[..., 0]
        found.append(F.smooth_l1_loss(predicted, goals, reduction="none"))
    return torch.stack(found)
