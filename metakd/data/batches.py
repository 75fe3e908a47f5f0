"""Whole batches of labelled images, each example at most once an epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from metakd.data.counter_random import bits_at, permutation, stream_key
from metakd.data.tasks import ExampleBatch
from metakd.errors import UserError

if TYPE_CHECKING:
    from metakd.data.images import ImageData

__all__ = ["BatchStream", "EpochOrder"]


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
    """An `ExampleStream` over images; made by `ImageData.batches`.

    Args:
        data: where the images are.
        part: whose images.
        index: [m] int64, the images to draw from.
        batch_size: images of a batch; the last, smaller one of an epoch is left out.
        key: names the stream.
        views: fixed views to draw from; 0: images are augmented afresh; 1: clean.
    """

    def __init__(
        self,
        data: ImageData,
        part: str,
        index: Tensor,
        *,
        batch_size: int,
        key: int,
        views: int,
    ) -> None:
        if len(index) == 0:
            raise UserError(f"{data.name}: the part '{part}' has no images to train on")
        if batch_size < 1:
            raise UserError(f"batch_size={batch_size}: give a positive number")
        self._data, self._part, self._index = data, part, index
        self._labels = data.part(part).labels
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
        """Return batch `step`: [n, channels, height, width] images, [n] labels."""
        epoch, position = divmod(step, self.batches_per_epoch)
        start = position * self._size
        index = self._index[self._order.of(epoch)[start : start + self._size]]
        key = stream_key(self._key, "views", step)
        images, view = view_or_augment(self._data, self._part, index, self._views, key)
        return ExampleBatch(images, self._labels[index], index, view)


def view_or_augment(
    data: ImageData, part: str, index: Tensor, views: int, key: int
) -> tuple[Tensor, Tensor | None]:
    """Return the images at `index` and which fixed views they are.

    Args:
        data: where the images are.
        part: `train`, `validate` or `test`.
        index: [...] int64.
        views: number of fixed views to draw from, 1: the clean images; 0: changed afresh.
        key: decides the views, or the changes.

    Returns:
        images [..., channels, height, width]; view [...] int64, or None if changed afresh.
    """
    if views == 0:
        return data.fresh_examples(part, index, key), None
    if views == 1:
        return data.examples(part, index), torch.zeros_like(index)
    slots = torch.arange(index.numel(), device=index.device).view(index.shape)
    view = bits_at(key, slots) % views
    return data.examples(part, index, view), view
