"""The accuracy–cost Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from metakd.runs.records_compare import CostName

__all__ = ["COSTS", "front"]

COSTS: Mapping[CostName, str] = {
    "parameters": "parameters",
    "macs": "multiply-adds",
    "task_macs": "multiply-adds of a task",
    "latency_ms": "latency (ms)",
    "task_latency_ms": "latency of a task (ms)",
}
"""Costs of results.json for which there is a front, and what a column calls them."""


def front(
    points: Sequence[tuple[float, float] | None], spreads: Sequence[float] = ()
) -> list[bool]:
    """Return for each point whether no other one dominates it.

    Of two equal points both are on the front. Costs that differ by no more than the sum of their
    spreads count as equal, so that of two such points only the better one is on it.

    Args:
        points: (cost, goodness) each, larger goodness is better; None: not measured.
        spreads: uncertainty of each cost; none: exact.
    """
    on = [False] * len(points)
    known = [(cost, -good, i) for i, p in enumerate(points) if p is not None for cost, good in [p]]
    if any(spreads):
        noisy = [(cost, bad, spreads[i]) for cost, bad, i in known]
        for point, (_, _, i) in zip(noisy, known, strict=True):
            on[i] = not any(_beats(other, point) for other in noisy)
        return on
    best: tuple[float, float] | None = None  # goodness (negated) and cost of the last on the front
    for cost, bad, i in sorted(known):
        if best is None or bad < best[0]:
            best = (bad, cost)
            on[i] = True
        elif (bad, cost) == best:
            on[i] = True
    return on


def _beats(one: tuple[float, float, float], other: tuple[float, float, float]) -> bool:
    """Tell whether `one` is as good at a clearly lower cost, or better at an equal one."""
    (cost, bad, spread), (other_cost, other_bad, other_spread) = one, other
    room = spread + other_spread
    cheaper = other_cost - cost > room
    equal = abs(other_cost - cost) <= room
    return (cheaper and bad <= other_bad) or (equal and bad < other_bad)
