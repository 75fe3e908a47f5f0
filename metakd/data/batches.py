"""Whole batches of labelled examples, each example at most once an epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from metakd.data.class_examples import ClassExamples
from metakd.data.counter_random import bits_at, permutation, stream_key
from metakd.data.tasks import ExampleBatch
from metakd.errors import UserError

__all__ = ["BatchStream", "BatchesInTurn", "EpochOrder", "ExampleSource", "view_or_augment"]


class ExampleSource(Protocol):
    """What streams ask of the data that they draw from; see `ClassData`."""

    name: str
    device: torch.device

    def split(self, name: str) -> ClassExamples:
        """Return `train`, `validate` or `test`."""
        ...

    def examples(self, split: str, index: Tensor, view: Tensor | None = None) -> Tensor:
        """Return examples [*index.shape, *example], in a fixed view of each."""
        ...

    def fresh_examples(self, split: str, index: Tensor, key: int) -> Tensor:
        """Return the same, changed at random as `key` decides."""
        ...

    def alike(self, support: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
        """Return the two sides of tasks with examples of one shape."""
        ...


class EpochOrder:
    """The random order of 0 … n-1 in each epoch, a pure function of (key, epoch).

    The last one used is kept, because successive steps ask for the same one.
    """

    def __init__(self, key: int, n: int, device: torch.device | str) -> None:
        self._key, self._n, self._device = key, n, device
        self._kept: tuple[int, Tensor] | None = None

    def of(self, epoch: int) -> Tensor:
        """Return the order of `epoch`, int64 [n]."""
        if self._kept is None or self._kept[0] != epoch:
            key = stream_key(self._key, "epoch", epoch)
            self._kept = (epoch, permutation(key, self._n, self._device))
        return self._kept[1]


class BatchStream:
    """An `ExampleStream`; made by `ClassData.batches`.

    Args:
        data: where the examples are.
        split: whose examples.
        index: [m] int64, the examples to draw from.
        batch_size: examples of a batch; the last, smaller one of an epoch is left out.
        key: names the stream.
        views: fixed views to draw from; 0: examples are augmented afresh; 1: clean.
    """

    def __init__(
        self,
        data: ExampleSource,
        split: str,
        index: Tensor,
        *,
        batch_size: int,
        key: int,
        views: int,
    ) -> None:
        if len(index) == 0:
            raise UserError(f"{data.name}: the split '{split}' has no examples to train on")
        if batch_size < 1:
            raise UserError(f"batch_size={batch_size}: give a positive number")
        self._data, self._split, self._index = data, split, index
        self._labels = data.split(split).labels
        self._size = min(batch_size, len(index))
        self._key, self._views = key, views
        self._order = EpochOrder(key, len(index), index.device)
        self.batches_per_epoch = len(index) // self._size

    def steps(self, epochs: int, updates: int | None = None) -> int:
        """Return the number of batches in `epochs` passes, or in as many as make `updates`.

        No passes stay none.
        """
        if epochs and updates is not None:
            epochs = max(epochs, -(-updates // self.batches_per_epoch))
        return epochs * self.batches_per_epoch

    def batch(self, step: int) -> ExampleBatch:
        """Return batch `step`: [n, *example] examples, [n] labels."""
        epoch, position = divmod(step, self.batches_per_epoch)
        start = position * self._size
        index = self._index[self._order.of(epoch)[start : start + self._size]]
        key = stream_key(self._key, "views", step)
        examples, view = view_or_augment(self._data, self._split, index, self._views, key)
        return ExampleBatch(examples, self._labels[index], index, view)


class BatchesInTurn:
    """An `ExampleStream` that takes its batches from several streams in turn.

    Args:
        streams: at least one; batch `step` is the next one of stream `step % len(streams)`.
    """

    def __init__(self, streams: Sequence[BatchStream]) -> None:
        self._streams = tuple(streams)

    def batch(self, step: int) -> ExampleBatch:
        """Return batch `step`: [n, *example] examples, [n] labels."""
        own, which = divmod(step, len(self._streams))
        return self._streams[which].batch(own)


def view_or_augment(
    data: ExampleSource, split: str, index: Tensor, views: int, key: int
) -> tuple[Tensor, Tensor | None]:
    """Return the examples at `index` and which fixed views they are.

    Args:
        data: where the examples are.
        split: `train`, `validate` or `test`.
        index: [...] int64.
        views: number of fixed views to draw from, 1: clean; 0: changed afresh.
        key: decides the views, or the changes.

    Returns:
        examples [..., *example]; view [...] int64, or None if changed afresh.
    """
    if views == 0:
        return data.fresh_examples(split, index, key), None
    if views == 1:
        return data.examples(split, index), torch.zeros_like(index)
    slots = torch.arange(index.numel(), device=index.device).view(index.shape)
    view = bits_at(key, slots) % views
    return data.examples(split, index, view), view
