"""The size of few-shot tasks and how they are drawn (method.md section 1)."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["TaskSpec"]


@dataclass(frozen=True)
class TaskSpec:
    """What decides the tasks of a stream, beside its data and its seed.

    Attributes:
        ways: classes of a task; regression has none and ignores them.
        shots: support examples of a class.
        queries: query examples of a class.
        sampling: `uniform`, `superclass` or `partition`; see `EpisodeDraw`.
        number: how many different tasks there are; None: endless.
    """

    ways: int
    shots: int
    queries: int
    sampling: str = "uniform"
    number: int | None = None
