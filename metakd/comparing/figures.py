"""Figures and costs of rows, and their accuracy-cost Pareto front."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from metakd.comparing.gather import Run
from metakd.comparing.pairing import Row
from metakd.reports.statistics import over_seeds
from metakd.runs.records import Measurement
from metakd.runs.records_compare import CostName

__all__ = [
    "COSTS",
    "Figure",
    "cost_of",
    "diverged_of",
    "figure_of",
    "front",
    "fronts_of",
    "headline_shots",
    "machine_of",
]

COSTS: Mapping[CostName, str] = {
    "parameters": "parameters",
    "macs": "multiply-adds",
    "task_macs": "multiply-adds of a task",
    "latency_ms": "latency (ms)",
    "task_latency_ms": "latency of a task (ms)",
}
"""Costs of results.json for which there is a front, and what a column calls them."""


@dataclass(frozen=True)
class Figure:
    """A figure of a row.

    Attributes:
        measure: `accuracy` (0 to 1) or `mse`.
        mean: over tasks, and over seeds if there are several.
        half: half-width of its 95 % interval: over tasks of one run, over seeds of several; None
            if it is not known.
        deviation: standard deviation over seeds; None for one.
        seeds: number of networks.
    """

    measure: str
    mean: float
    half: float | None
    deviation: float | None
    seeds: int

    @property
    def goodness(self) -> float:
        """Return the mean so that more is better."""
        return -self.mean if self.measure == "mse" else self.mean


def figure_of(row: Row, model: str, shots: int) -> Figure | None:
    """Return a row's figure; None unless every one of its runs has this measurement.

    A network that several runs share counts once: a teacher, or a student of which the seed decides
    nothing, so that all figures are the same.
    """
    entries = [run.headlines.get(model, {}).get(shots) for run in row]
    found = [entry for entry in entries if entry is not None]
    if len(found) < len(row):
        return None
    measure = found[0].measure
    values = [e.value for e in found if e.value is not None and e.measure == measure]
    if len(values) < len(row):
        return None
    first = {run.network(model): i for i, run in reversed([*enumerate(row)])}
    values = [values[i] for i in sorted(first.values())]
    if len(values) == 1 or _are_one(row, found, model):
        return Figure(measure, values[0], found[0].ci95, None, 1)
    mean, half = over_seeds(values, min(entry.step for entry in found))
    deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))
    return Figure(measure, mean, half, deviation, len(values))


def _are_one(row: Row, found: Sequence[Measurement], model: str) -> bool:
    """Tell whether all figures of a row's runs are the same: the seed decided nothing."""
    if len({(entry.value, entry.ci95) for entry in found}) > 1:
        return False
    return len({run.figures(model) for run in row}) == 1


def diverged_of(row: Row, model: str, shots: int) -> float:
    """Return the share of a row's tasks that diverged, of the run with most; 0: none did.

    In accuracy they count as wrong answers; of errors there is no figure then.
    """
    entries = [run.headlines.get(model, {}).get(shots) for run in row]
    return max(entry.diverged or 0.0 if entry else 0.0 for entry in entries)


def headline_shots(runs: Sequence[Run], model: str) -> list[int]:
    """Return the numbers of shots of the headlines of finished runs."""
    return sorted({next(iter(run.headlines[model])) for run in runs if model in run.headlines})


def cost_of(row: Row, model: str, key: str) -> float | None:
    """Return a cost of a row's model, mean over its runs; None if one of them lacks it."""
    known = [value for run in row if (value := run.cost(model, key)) is not None]
    return math.fsum(known) / len(known) if len(known) == len(row) else None


def _spread_of(row: Row, model: str, key: str) -> float:
    """Return the uncertainty of a row's latency (ms): its spread over repetitions.

    That is the spread within a run (`latency_ms_spread`, the mean of its runs; 0 where it was not
    recorded, as of `task_latency_ms`), or half the range between runs where that is more.
    """
    within = math.fsum(run.cost(model, f"{key}_spread") or 0.0 for run in row) / len(row)
    known = [value for run in row if (value := run.cost(model, key)) is not None]
    return max(within, (max(known) - min(known)) / 2 if known else 0.0)


def fronts_of(
    rows: Sequence[Row], shots: Sequence[int], model: str
) -> dict[CostName, tuple[bool, ...]]:
    """Return by cost, for each row, whether it is on the Pareto front at the first shots.

    There is none over latencies of different machines, nor over costs of tasks of different shots.
    Latencies that are closer than their spreads count as equal.

    Args:
        rows: evaluated on the same tasks.
        shots: that they were measured with.
        model: whose figures and costs.
    """
    found: dict[CostName, tuple[bool, ...]] = {}
    runs = [run for row in rows for run in row]
    for key in COSTS if shots and len(rows) > 1 else ():
        timed = key.endswith("latency_ms")
        if timed and len({machine_of(run) for run in runs}) > 1:
            continue
        if key.startswith("task_") and len(headline_shots(runs, model)) > 1:
            continue
        points, spreads = [], []
        for row in rows:
            figure, cost = figure_of(row, model, shots[0]), cost_of(row, model, key)
            known = figure is not None and cost is not None
            points.append((cost, figure.goodness) if known else None)  # type: ignore[union-attr]
            spreads.append(_spread_of(row, model, key) if timed else 0.0)
        if any(points):
            found[key] = tuple(front(points, spreads))  # type: ignore[arg-type]
    return found


def machine_of(run: Run) -> str:
    """Return a key that is equal for runs whose latencies can be compared."""
    info = run.info
    known = [info.processor, info.device, info.gpus, info.threads]
    return repr(known if info.processor else [*known, info.host])


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
