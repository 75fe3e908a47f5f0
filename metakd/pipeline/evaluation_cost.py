"""What one evaluation task costs compared with another, for the time that is left."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["task_cost"]

STEP = 3.0
"""A step of adaptation: forwards once, and backwards about twice as much."""

CALLS = 40.0
"""What a step costs however few images it is of; a small network's is calls for the most part."""

KNOWN = 0.05
"""What is left to do for an image whose embedding is known."""


def task_cost(
    ways: int, shots: int, queries: int, steps: Sequence[int] | None, *, embedded: bool
) -> float:
    """Return the cost of a task in forward passes of one image; roughly, it is for proportions.

    Args:
        ways: classes.
        shots: support examples of a class.
        queries: queries of a class.
        steps: numbers of adaptation steps after which queries are answered; None: none.
        embedded: the embeddings of all images are known.
    """
    support, asked = ways * shots, ways * queries
    if steps is None:
        return (support + asked) * (KNOWN if embedded else 1.0)
    return (support * STEP + CALLS) * max(steps) + asked * len(steps)
