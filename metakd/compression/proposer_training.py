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
from metakd.compression.description import FEATURES, TaskDescription
from metakd.compression.proposer import Proposer
from metakd.compression.space import Candidates

__all__ = ["EvaluatedTask", "train_proposer"]

MOST_SUPPORT = 10
STEPS = 400
LEARNING_RATE = 5e-3
WEIGHT_DECAY = 1e-2


@dataclass(frozen=True)
class EvaluatedTask:
    """A compression task and its evaluated strategies.

    Attributes:
        task: its description.
        uniform: the uniform strategy, one candidate.
        candidates: others.
        values: [n] accuracy of each less that of the uniform strategy.
    """

    task: TaskDescription
    uniform: Candidates
    candidates: Candidates
    values: Tensor


def train_proposer(
    tasks: Sequence[EvaluatedTask], seed: int = 0, steps: int = STEPS
) -> Proposer:
    """Return a proposer trained on evaluated tasks.

    Args:
        tasks: of several networks and budgets, at least two.
        seed: of its start and episodes.
        steps: updates; each sees every task once.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        proposer = Proposer()
    layers, present, values, known = _stacked(tasks)
    seen = layers[present]
    proposer.mean.copy_(seen.mean(0))
    # A number that is the same in all of them says nothing about others.
    spread = seen.std(0)
    proposer.deviation.copy_(torch.where(spread > 1e-6, spread, torch.ones(FEATURES)))
    proposer.scale.copy_(values[known].std().clamp_min(1e-6))
    goals = values / proposer.scale
    optimizer = torch.optim.AdamW(proposer.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        support = _support(known, generator)
        loss = _loss(proposer, layers, present, goals, support, known & ~support)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return proposer.eval()


def _stacked(tasks: Sequence[EvaluatedTask]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return tasks as one: uniform strategies first, padded with what is not `present` or known."""
    found = [
        torch.cat([t.task.features(t.uniform), t.task.features(t.candidates)]) for t in tasks
    ]
    strategies, deepest = max(len(f) for f in found), max(f.shape[1] for f in found)
    layers = torch.zeros(len(tasks), strategies, deepest, FEATURES)
    present = torch.zeros(len(tasks), strategies, deepest, dtype=torch.bool)
    values = torch.zeros(len(tasks), strategies - 1)
    known = torch.zeros(len(tasks), strategies - 1, dtype=torch.bool)
    for i, (features, task) in enumerate(zip(found, tasks, strict=True)):
        layers[i, : len(features), : features.shape[1]] = features
        present[i, : len(features), : features.shape[1]] = True
        values[i, : len(task.values)] = task.values.float()
        known[i, : len(task.values)] = True
    return layers, present, values, known


def _support(known: Tensor, generator: torch.Generator) -> Tensor:
    """Draw a support set of each task, [tasks, n] bool: at most half of its strategies."""
    count = torch.randint(0, MOST_SUPPORT + 1, (len(known), 1), generator=generator)
    count = torch.minimum(count, known.sum(1, keepdim=True) // 2)
    order = torch.rand(known.shape, generator=generator).masked_fill(~known, 2.0)
    return order.argsort(1).argsort(1) < count


def _loss(
    proposer: Proposer,
    layers: Tensor,
    present: Tensor,
    goals: Tensor,
    support: Tensor,
    asked: Tensor,
) -> Tensor:
    """Return the mean error of the asked strategies' values, of all members."""
    tasks, strategies = layers.shape[:2]
    found = proposer.embed(layers.flatten(0, 1), present.flatten(0, 1))
    found = found.unflatten(1, (tasks, strategies))
    points = found[:, :, 1:] - found[:, :, :1]
    predicted = []
    for own, prior in zip(points, proposer.prior, strict=True):
        shown = own * support[..., None]  # a row of zeros changes no solution
        left = (goals[..., None] - own @ prior) * support[..., None]
        weights = prior + ridge_weights(shown, left, proposer.log_penalty.exp())
        predicted.append((own @ weights)[..., 0])
    errors = F.smooth_l1_loss(
        torch.stack(predicted), goals.expand(len(predicted), -1, -1), reduction="none"
    )
    return (errors * asked).sum() / (asked.sum() * len(predicted)).clamp_min(1)

