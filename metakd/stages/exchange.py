"""Where several processes are one training: each takes a part of a batch, gradients are averaged.

The mean over a batch is the mean of its parts, weighted by their sizes. What normalises over the
whole batch asks for the statistics of all parts (`shared_statistics`), so that the outcome is that
of one process but for rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TypeVar

from torch import Tensor, nn

from metakd.adaptation.algorithm import Algorithm
from metakd.data.tasks import ExampleBatch, TaskBatch
from metakd.distillation.objective import Objective
from metakd.distributed.group import Group
from metakd.models.normalization import shared_statistics

__all__ = ["Exchange", "Shared", "part_of"]

Shared = TypeVar("Shared", TaskBatch, ExampleBatch, TaskBatch | ExampleBatch)


def part_of(batch: Shared, rank: int, size: int) -> tuple[Shared, float]:
    """Return part `rank` of `size` of a batch, in order, and its share of the whole.

    Parts differ by one task (example) at most. A batch of fewer than `size` has empty parts.
    """
    count = len(batch)
    first, end = count * rank // size, count * (rank + 1) // size
    return batch[first:end], (end - first) / count


class Exchange:
    """Shares out the batches of a training and brings gradients together.

    Args:
        group: the processes, two or more.
        modules: `learner` and `objective`.
    """

    def __init__(self, group: Group, modules: Mapping[str, nn.Module]) -> None:
        self._group = group
        self._modules = modules
        self._weight = 1.0
        self._whole = False
        self._started = False

    def share(self, batch: Shared) -> Shared:
        """Return this process's part of a batch.

        A whole batch whose objective compares its examples cannot be divided: each process then
        computes all of it, and the mean changes nothing.
        """
        group = self._group
        objective = self._modules["objective"]
        assert isinstance(objective, Objective)
        self._whole = isinstance(batch, ExampleBatch) and not objective.mean_over_examples
        if self._whole:
            self._weight = 1.0 / group.size
            return batch
        part, self._weight = part_of(batch, group.rank, group.size)
        return part

    def statistics(self) -> AbstractContextManager[None]:
        """Let batch norm over the whole batch take the statistics of all parts in the block."""
        group = self._group
        if not self._started:  # all begin alike, whatever made them
            self._started = True
            group.spread([t for m in self._modules.values() for t in m.state_dict().values()])
        learner = self._modules["learner"]
        assert isinstance(learner, Algorithm)
        weight = self._weight
        return shared_statistics(
            learner.over_batch(), None if self._whole else lambda x: group.statistics(x, weight)
        )

    def average(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """Bring gradients, and what else is a mean over tasks, together; return the mean terms.

        Something that is not finite in one process is not finite in all of them afterwards.
        """
        learner = self._modules["learner"]
        assert isinstance(learner, Algorithm)
        terms = {name: term.detach().clone() for name, term in terms.items()}
        gradients = [
            p.grad for m in self._modules.values() for p in m.parameters() if p.grad is not None
        ]
        means = learner.means_over_tasks()
        self._group.average([*terms.values(), *gradients, *means], self._weight)
        return terms

    def mean(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Return the mean of metrics of the parts."""
        return self._group.mean(metrics, self._weight)
