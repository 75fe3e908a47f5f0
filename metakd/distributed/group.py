"""The processes that work on a run together; alone, one process is all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

    from metakd.runs.interrupts import Stop

__all__ = ["ALONE", "Group", "in_order"]

Value = TypeVar("Value")


class Group:
    """One process on its own: whatever is shared, averaged or gathered stays as it is.

    `Processes` (processes.py) is the same for several. All of them make the same calls in the
    same order.

    Attributes:
        rank: number of this process, from 0; process 0 writes the run's folder.
        size: number of processes.
    """

    rank = 0
    size = 1

    def together(self, action: Callable[[], Value]) -> Value:
        """Return `action()`; if it fails on any process, no process goes on."""
        return action()

    def first(self, action: Callable[[], Value]) -> Value:
        """Return what `action` gives in process 0, which alone calls it, in every process."""
        return action()

    def first_only(self, action: Callable[[], Value]) -> Value | None:
        """Return what `action` gives in process 0, and None in the others."""
        return action()

    def average(self, tensors: Sequence[Tensor], weight: float) -> None:
        """Replace each tensor by its mean over the processes, this one's counted `weight`."""

    def mean(self, values: Mapping[str, float], weight: float) -> dict[str, float]:
        """Return the means of named numbers over the processes, this one's counted `weight`."""
        return dict(values)

    def spread(self, tensors: Sequence[Tensor]) -> None:
        """Overwrite the tensors by those of process 0."""

    def gather(self, value: Value) -> list[Value]:
        """Return what each process gave, in the order of their numbers."""
        return [value]

    def mine(self, number: int) -> bool:
        """Tell whether piece `number` of work that is dealt out falls to this process."""
        return number % self.size == self.rank

    def statistics(self, x: Tensor, weight: float) -> tuple[Tensor, Tensor, int]:
        """Return batch norm's mean, biased variance and number of values over all processes.

        Args:
            x: [n, channels, height, width], this process's part.
            weight: its share of the whole batch.
        """
        over = (0, 2, 3)
        return x.mean(over), x.var(over, correction=0), x.numel() // x.shape[1]

    def obey(self, stop: Stop) -> None:
        """End together: a process that is asked to end says so, and all end at `check`."""

    def check(self) -> None:
        """End here if any process was asked to, as far as it was said by now.

        Raises:
            Interrupted: in every process.
        """

    def leave(self) -> None:
        """End the work together; what is left process 0 does alone."""

    def describe(self) -> dict[str, Any]:
        """Return what run.json records of the processes; nothing of one."""
        return {} if self.size == 1 else {"processes": self.size}


ALONE = Group()


def in_order(dealt: Sequence[Sequence[Value]]) -> list[Value]:
    """Put pieces that were dealt out to processes in turn (`Group.mine`) in order again."""
    count = sum(len(hand) for hand in dealt)
    return [dealt[i % len(dealt)][i // len(dealt)] for i in range(count)]
