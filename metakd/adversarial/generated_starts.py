"""Judging a learner from other starts than its own parameters (method.md section 6)."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metakd.adaptation.algorithm import Algorithm
from metakd.adaptation.differentiation import Tensors
from metakd.data.tasks import TaskBatch

__all__ = ["best_start", "flat_offsets", "from_start", "predict_from", "relative_spread"]


def predict_from(
    learner: Algorithm, offsets: Tensor, tasks: TaskBatch, steps: Sequence[int], batchnorm: str
) -> Tensor:
    """Predict from the start whose loss on the support set is smallest after adaptation.

    Chosen for each task and number of steps by itself; with one start there is no choice.

    Args:
        learner: adapts and predicts; its parameters are as before afterwards.
        offsets: [starts, parameters], what each start adds to the flat parameters.
        tasks: the tasks.
        steps: see `Algorithm.predict`, as for the result.
        batchnorm: likewise.
    """
    found, losses = [], []
    for offset in offsets:
        with _moved(learner, offset):
            found.append(learner.predict(tasks, steps, batchnorm))
            if len(offsets) > 1:
                losses.append(_support_losses(learner, tasks, steps, batchnorm))
    if len(offsets) == 1:
        return found[0]
    best = torch.stack(losses).argmin(0)  # [steps, tasks]
    every = torch.stack(found)  # [starts, steps, tasks, n, ways]
    index = best[None, :, :, None, None].expand(1, *every.shape[1:])
    return every.gather(0, index)[0]


def best_start(
    learner: Algorithm, offsets: Tensor, tasks: TaskBatch, steps: int, batchnorm: str
) -> int:
    """Return from which start `predict_from` predicts for one task after so many steps."""
    losses = []
    for offset in offsets:
        with _moved(learner, offset):
            losses.append(_support_losses(learner, tasks, (steps,), batchnorm)[0, 0])
    return int(torch.stack(losses).argmin())


def from_start(learner: Algorithm, offset: Tensor) -> Algorithm:
    """Return a copy of `learner` whose parameters lie at a flat `offset` from those of its own."""
    other = copy.deepcopy(learner)
    parameters = list(other.parameters())
    with torch.no_grad():
        for p, piece in zip(parameters, offset.split([p.numel() for p in parameters]), strict=True):
            p.add_(piece.view_as(p))
    return other


def relative_spread(offsets: Mapping[str, Tensors]) -> Tensor:
    """Return the standard deviation over starts, relative to the size of the offsets.

    Args:
        offsets: of each network, by name: [starts, *shape].
    """
    flat = torch.cat([o.flatten(1) for part in offsets.values() for o in part.values()], 1)
    size = flat.square().mean().sqrt().clamp_min(1e-30)
    return flat.var(0, unbiased=True).mean().sqrt() / size


def flat_offsets(learner: nn.Module, offsets: Tensors) -> Tensor:
    """Return offsets [starts, *shape] by name as rows, [starts, parameters]; 0 where none is."""
    count = len(next(iter(offsets.values())))
    rows = [
        offsets[name].flatten(1) if name in offsets else p.new_zeros(count, p.numel())
        for name, p in learner.named_parameters()
    ]
    return torch.cat(rows, dim=1)


def _support_losses(
    learner: Algorithm, tasks: TaskBatch, steps: Sequence[int], batchnorm: str
) -> Tensor:
    """Return the loss on the support set after adapting to it, [steps, tasks]."""
    again = replace(
        tasks,
        query=tasks.support,
        query_targets=tasks.support_targets,
        query_index=tasks.support_index,
        query_view=tasks.support_view,
        queries=tasks.shots,  # nobody counts by it: classes may differ in their numbers
    )
    logits = learner.predict(again, steps, batchnorm)
    targets = tasks.support_targets.expand(len(logits), -1, -1)
    losses = F.cross_entropy(logits.flatten(0, 2), targets.flatten(), reduction="none")
    return losses.view(targets.shape).mean(-1)


@contextmanager
def _moved(learner: Algorithm, offset: Tensor) -> Iterator[None]:
    """Add a flat offset to the learner's parameters; they come back exactly."""
    parameters = list(learner.parameters())
    before = [p.detach().clone() for p in parameters]
    pieces = offset.split([p.numel() for p in parameters])
    with torch.no_grad():
        for p, piece in zip(parameters, pieces, strict=True):
            p.add_(piece.view_as(p))
    try:
        yield
    finally:
        with torch.no_grad():
            for p, old in zip(parameters, before, strict=True):
                p.copy_(old)
