"""How much memory autograd keeps for backward passes at a time, counted tensor by tensor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

__all__ = ["GraphMemory", "peak_of_graph"]


class GraphMemory:
    """Bytes of the storages that graphs hold on to; each storage counts once.

    Attributes:
        bytes: the most that was held at a time.
        largest: of a single storage.
    """

    def __init__(self, known: Iterable[Tensor]) -> None:
        self.bytes = 0
        self.largest = 0
        self._now = 0
        self._known = {t.untyped_storage().data_ptr() for t in known}
        self._holders: dict[int, int] = {}

    def pack(self, tensor: Tensor) -> _Kept:
        """Return what autograd keeps in the place of `tensor`."""
        storage = tensor.untyped_storage()
        at, size = storage.data_ptr(), storage.nbytes()
        if at in self._known:
            return _Kept(self, tensor, 0, 0)
        holders = self._holders.get(at, 0)
        self._holders[at] = holders + 1
        if not holders:
            self._now += size
            self.largest = max(self.largest, size)
            self.bytes = max(self.bytes, self._now)
        return _Kept(self, tensor, at, size)

    def release(self, at: int, size: int) -> None:
        """Count one holder of the storage at this address less."""
        self._holders[at] -= 1
        if not self._holders[at]:
            del self._holders[at]
            self._now -= size


class _Kept:
    """A tensor kept by a graph; when the graph lets go of it, it is counted out."""

    __slots__ = ("at", "memory", "size", "tensor")

    def __init__(self, memory: GraphMemory, tensor: Tensor, at: int, size: int) -> None:
        self.memory, self.tensor, self.at, self.size = memory, tensor, at, size

    def __del__(self) -> None:
        if self.at:
            self.memory.release(self.at, self.size)


@contextmanager
def peak_of_graph(known: Iterable[Tensor] = ()) -> Iterator[GraphMemory]:
    """Count within the block what graphs of this thread hold, gradients' own graphs included.

    Temporary results that no graph keeps are not counted, nor is what lies in `known` anyway.
    Not for torch.func transforms, which PyTorch does not let be watched in this way.

    Args:
        known: tensors (parameters, data) that exist beforehand; graphs share their storages.
    """
    memory = GraphMemory(known)
    with torch.autograd.graph.saved_tensors_hooks(memory.pack, lambda kept: kept.tensor):
        yield memory
