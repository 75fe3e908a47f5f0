"""The accuracy : cost front: who is beaten by nobody that costs no more."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["COSTS", "front"]

COSTS = ("parameters", "macs", "latency_ms")
"""Costs of results.json that a front is drawn over."""


def front(points: Sequence[tuple[float, float] | None]) -> list[bool]:
    """Tell of each point whether no other one is at least as good at no higher cost.

    Of two equal points both are on the front.

    Args:
        points: (cost, goodness) each, more goodness being better; None for what was not measured.
    """
    on = [False] * len(points)
    known = [(cost, -good, i) for i, p in enumerate(points) if p is not None for cost, good in [p]]
    best: tuple[float, float] | None = None  # goodness (negated) and cost of the last on the front
    for cost, bad, i in sorted(known):
        if best is None or bad < best[0]:
            best = (bad, cost)
            on[i] = True
        elif (bad, cost) == best:
            on[i] = True
    return on
