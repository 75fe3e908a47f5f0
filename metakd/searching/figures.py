"""Figures of a search: its history, or the front of accuracy and cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from metakd.comparing.figures import front
from metakd.reports.drawing import COLORS, INK, canvas, save, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Tried", "draw_history", "draw_pareto"]

BEATEN = "#9a9a9a"
WIDE = 20
"""Ratio of largest to smallest cost above which the axis is logarithmic."""
LABELS = {
    "accuracy": "accuracy on validation classes (%)",
    "mse": "mean squared error on validation tasks",
    "parameters": "parameters of the student",
    "macs": "multiply-adds of the student",
    "task_macs": "multiply-adds of the student on a task",
    "bytes": "bytes of the student",
    "latency_ms": "latency of the student (ms)",
    "task_latency_ms": "latency of the student on a task (ms)",
}


@dataclass(frozen=True)
class Tried:
    """A finished trial.

    Attributes:
        number: of the trial.
        values: of the objectives; None: it was pruned.
        last: its last validation, if it had any.
        params: the values that were tried.
        ci95: half-width of the 95 % interval of accuracy or error.
    """

    number: int
    values: tuple[float, ...] | None
    last: float | None
    params: Mapping[str, str | int | float | bool | None]
    ci95: float | None = None


def draw_history(tried: Sequence[Tried], objective: str, out: Path) -> Path:
    """Draw each trial's objective, the best so far, and the last validation of pruned ones.

    Args:
        tried: the trials in the order in which they were asked for.
        objective: its name.
        out: the PNG to write.

    Returns:
        `out`.
    """
    scale = 100.0 if objective == "accuracy" else 1.0
    better = max if objective == "accuracy" else min
    from matplotlib.ticker import MaxNLocator

    figure = canvas(6.4, 3.9)
    axes = figure.subplots()
    complete = [(t.number, scale * t.values[0]) for t in tried if t.values is not None]
    pruned = [(t.number, scale * t.last) for t in tried if t.values is None and t.last is not None]
    _scatter(axes, pruned, BEATEN, "pruned, last validation", "x")
    _scatter(axes, complete, COLORS["student"], "complete", "o")
    if complete:
        best = [complete[0]]
        for number, value in complete[1:]:
            best.append((number, better(best[-1][1], value)))
        best.append((max(t.number for t in tried), best[-1][1]))
        axes.step([x for x, _ in best], [y for _, y in best], where="post", lw=1.6, zorder=2,
                  color=COLORS["student_alone"], label="best so far")  # fmt: skip
    tidy(axes, title="Search: trial by trial", xlabel="trial", ylabel=LABELS[objective])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return save(figure, out)


def draw_pareto(tried: Sequence[Tried], objectives: Sequence[str], out: Path) -> Path:
    """Draw accuracy (or error, or the first objective) over the others, and the Pareto front.

    Args:
        tried: the trials; pruned ones have no place here.
        objectives: their names, more than one.
        out: the PNG to write.

    Returns:
        `out`.
    """
    complete = [t for t in tried if t.values is not None]
    first = next((i for i, name in enumerate(objectives) if name in ("accuracy", "mse")), 0)
    costs = [i for i in range(len(objectives)) if i != first]
    figure = canvas(max(5.6, 4.6 * len(costs)), 4.2)
    grid = figure.subplots(1, len(costs), squeeze=False, sharey=True)[0]
    name = objectives[first]
    for axes, i in zip(grid, costs, strict=True):
        _panel(axes, complete, (name, first), (objectives[i], i))
    grid[0].set_ylabel(LABELS[name])
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return save(figure, out)


def _panel(
    axes: Axes, trials: Sequence[Tried], evaluated: tuple[str, int], cost: tuple[str, int]
) -> None:
    scale = 100.0 if evaluated[0] == "accuracy" else 1.0
    sign = 1.0 if evaluated[0] == "accuracy" else -1.0
    points = [
        (t.values[cost[1]], scale * t.values[evaluated[1]]) for t in trials if t.values is not None
    ]
    on = front([(x, sign * y) for x, y in points])
    beaten = [p for p, best in zip(points, on, strict=True) if not best]
    _scatter(axes, beaten, BEATEN, "dominated", "o")
    best = sorted((*p, t.number, t.ci95) for p, t, b in zip(points, trials, on, strict=True) if b)
    xs, ys = [b[0] for b in best], [b[1] for b in best]
    bars = [scale * (b[3] or 0.0) if evaluated[0] in ("accuracy", "mse") else 0.0 for b in best]
    axes.step(xs, ys, where="post", color=COLORS["student"], lw=1.2, alpha=0.6, zorder=2)
    axes.errorbar(xs, ys, bars, fmt="o", ms=5.5, color=COLORS["student"], capsize=2.5, lw=1.0,
                  label="Pareto front (95 % interval over tasks)", zorder=3)  # fmt: skip
    for x, y, number, _ in best:
        axes.annotate(str(number), (x, y), (4, -11), textcoords="offset points", fontsize=8,
                      color=INK)  # fmt: skip
    every = [x for x, _ in points]
    if min(every) > 0 and max(every) > WIDE * min(every):
        axes.set_xscale("log")
    title = f"{evaluated[0]} against {cost[0].replace('_', ' ')}"
    tidy(axes, title=title, xlabel=LABELS[cost[0]])


def _scatter(
    axes: Axes, points: Sequence[tuple[float, float]], color: str, label: str, marker: str
) -> None:
    if points:
        xs, ys = [x for x, _ in points], [y for _, y in points]
        axes.scatter(xs, ys, s=24, marker=marker, lw=1.1, color=color, label=label, zorder=3)
