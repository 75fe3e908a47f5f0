"""What travels between data, algorithms and teachers: a batch of tasks, a batch of examples."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, TypeVar

from torch import Tensor

__all__ = ["Batch", "ExampleBatch", "ExampleStream", "TaskBatch", "TaskStream"]


@dataclass(frozen=True)
class TaskBatch:
    """The tasks of one meta-iteration (method.md section 1).

    Examples of a task are in class order: class 0's examples first, then class 1's …
    All tensors lie on the compute device.

    Attributes:
        support: [tasks, ways * shots, *example], float.
        support_targets: [tasks, ways * shots] int64 labels 0 … ways-1, or float [.., outputs].
        query: [tasks, ways * queries, *example].
        query_targets: likewise.
        ways: classes of a task; 1 for regression.
        shots: support examples of a class.
        queries: query examples of a class.
        classes: [tasks, ways] int64, the split's class behind each label; None for regression.
        support_index: [tasks, ways * shots] int64, position of the example in its split.
        query_index: [tasks, ways * queries] likewise.
        support_view: [tasks, ways * shots] int64, which fixed view of the example (0 = clean),
            or None where views are not fixed (a cached teacher cannot answer then).
        query_view: likewise.
    """

    support: Tensor
    support_targets: Tensor
    query: Tensor
    query_targets: Tensor
    ways: int
    shots: int
    queries: int
    classes: Tensor | None = None
    support_index: Tensor | None = None
    query_index: Tensor | None = None
    support_view: Tensor | None = None
    query_view: Tensor | None = None

    def __len__(self) -> int:
        return self.support.shape[0]

    def __getitem__(self, which: slice) -> TaskBatch:
        """Return some of the tasks."""
        return _sliced(self, which)


@dataclass(frozen=True)
class ExampleBatch:
    """A whole batch of labelled examples of the meta-train classes.

    Attributes:
        examples: [n, *example], float, augmented and normalised.
        labels: [n] int64, the split's classes.
        index: [n] int64, position in the split.
        view: [n] int64, which fixed view; None where views are not fixed.
        mixed: [n, *example], mixtures to learn from in place of the examples (`mixed_batch`);
            None: there are none.
        partners: [n] int64, the labels of what the examples are mixed with.
        share: of the example itself in its mixture.
    """

    examples: Tensor
    labels: Tensor
    index: Tensor
    view: Tensor | None = None
    mixed: Tensor | None = None
    partners: Tensor | None = None
    share: float | None = None

    def __len__(self) -> int:
        return self.labels.shape[0]

    def __getitem__(self, which: slice) -> ExampleBatch:
        """Return some of the examples."""
        return _sliced(self, which)


_Batch = TypeVar("_Batch", TaskBatch, ExampleBatch)


def _sliced(batch: _Batch, which: slice) -> _Batch:
    """Return the batch with all of its tensors sliced."""
    values = {f.name: getattr(batch, f.name) for f in fields(batch)}
    cut: dict[str, Any] = {n: v[which] for n, v in values.items() if isinstance(v, Tensor)}
    return replace(batch, **cut)


class TaskStream(Protocol):
    """Tasks by step: a pure function of (seed, stage, step)."""

    def batch(self, step: int) -> TaskBatch:
        """Return the tasks of meta-iteration `step`; no earlier one needs to be drawn."""
        ...


Batch = TaskBatch | ExampleBatch
"""What an update is made from: tasks, or examples of the meta-train classes."""


class ExampleStream(Protocol):
    """Whole batches by step: a pure function of (seed, stage, step)."""

    batches_per_epoch: int

    def batch(self, step: int) -> ExampleBatch:
        """Return batch `step`; every epoch holds each example at most once."""
        ...
