"""learning_curves.png: losses and accuracies of every stage, from metrics.jsonl."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from metakd.reports.drawing import COLORS, INK, NAMES, canvas, drawing, mark_chance, save, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Points", "StageScale", "learning_curves", "read_series", "running_line", "running_mean"]

ALONE = "_alone"
"""Ending of the stages of the undistilled twin, e.g. `meta_train_alone`."""

TERMS = ("#8856a7", "#2a9d72", "#c0392b", "#7f7f7f")
"""Colours of a loss's terms."""

DECADES = 30.0
"""A curve whose values differ by more than this factor is drawn on a logarithmic axis."""

FEW = 30
"""Up to so many values are drawn as they are, without a running mean."""

LEGEND_COLUMNS = 2
HEADROOM = 0.13
"""Share of the height of axes that a line of the legend takes; kept free of curves."""

Points = list[tuple[int, float]]
_Of = Mapping[str, Points]


@dataclass(frozen=True)
class StageScale:
    """Reference values for the accuracies of a stage.

    Attributes:
        chance: accuracy of a guess on what is trained on, 0 to 1; None: unknown.
        validation_chance: the same on what is validated on.
        tasks: tasks of a validation; None where it is no few-shot one.
        keeps_best: the checkpoint with the best validation is kept, not the last one.
    """

    chance: float | None = None
    validation_chance: float | None = None
    tasks: int | None = None
    keeps_best: bool = False


def read_series(path: Path) -> dict[str, dict[str, Points]]:
    """Return stage -> metric -> [(step, value)] of a metrics.jsonl, in order of appearance.

    Values that are not finite, and an incomplete last line, are left out.
    """
    series: dict[str, dict[str, Points]] = {}
    whole, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
    for text in whole.splitlines():
        line = json.loads(text)
        stage = series.setdefault(line["stage"], {})
        for name, value in line["metrics"].items():
            if value is not None and math.isfinite(value):
                stage.setdefault(name, []).append((line["step"], float(value)))
    return series


@drawing
def learning_curves(
    metrics_path: Path,
    out: Path,
    weights: Mapping[str, float] | None = None,
    scales: Mapping[str, StageScale] | None = None,
) -> Path | None:
    """Draw a column for each stage: losses with their terms above, accuracies (or errors) below.

    The undistilled twin (`<stage>_alone`) has axes of its own below the student's. Pale lines are
    single steps, strong lines their running means. Terms are drawn times their
    weights, as they enter the total.

    Args:
        metrics_path: a run's metrics.jsonl.
        out: the PNG to write.
        weights: by name of a term (`loss/kd`) its weight; one without is drawn as it was logged.
        scales: by stage, for lines of chance and numbers of tasks.

    Returns:
        `out`, or None if nothing was logged.
    """
    series = read_series(metrics_path) if metrics_path.exists() else {}
    stages = list(dict.fromkeys(name.removesuffix(ALONE) for name in series))
    drawn = [s for s in stages if any(len(p) > 1 for p in _all_points(series, s))]
    if not drawn:
        return None
    endings = ("", ALONE) if any(series.get(stage + ALONE) for stage in drawn) else ("",)
    rows = 2 * len(endings)
    figure = canvas(max(5.2, 4.2 * len(drawn)), 0.4 + 2.3 * rows)
    figure.set_layout_engine("constrained", h_pad=0.06, hspace=0.03)
    grid = figure.subplots(rows, len(drawn), squeeze=False)
    for column, stage in enumerate(drawn):
        scale = (scales or {}).get(stage, StageScale())
        used, qualities = [], []
        for i, ending in enumerate(endings):
            metrics = series.get(stage + ending, {})
            # The teacher's own training logs its accuracy as the learner's.
            who = "teacher" if stage == "pretrain" else "student" + ending
            above, below = grid[i][column], grid[len(endings) + i][column]
            used += _draw_losses(above, metrics, who, weights or {})
            qualities += _draw_quality(below, metrics, who, scale)
        _alike(qualities)
        _finish([*used, *qualities], stage, max(p[-1][0] for p in _all_points(series, stage)))
        for axes in set(grid[:, column]) - {*used, *qualities}:
            axes.set_visible(False)
    return save(figure, out)


def _all_points(series: Mapping[str, _Of], stage: str) -> list[Points]:
    return [p for name in (stage, stage + ALONE) for p in series.get(name, {}).values()]


def _draw_losses(axes: Axes, metrics: _Of, who: str, weights: Mapping[str, float]) -> list[Axes]:
    """Draw the total and what each term contributes; return the axes if anything was drawn."""
    if "loss" not in metrics:
        return []
    terms = [name for name in metrics if name.startswith("loss/")]
    shown: list[Points] = [metrics["loss"]]
    if len(terms) > 1:  # a single term is the loss itself
        for name, color in zip(terms, TERMS * len(terms), strict=False):
            weight, short = weights.get(name), name.removeprefix("loss/")
            label = f"{short}, before its weight"
            if weight is not None:
                label = short if weight == 1 else f"{weight:g} × {short}"
            points = [(s, v if weight is None else weight * v) for s, v in metrics[name]]
            running_line(axes, points, color, label, thin=True)
            shown.append(points)
    running_line(axes, metrics["loss"], COLORS[who], "total" if len(terms) > 1 else "loss")
    if any(_spans_decades(points) for points in shown):
        axes.set_yscale("log")
    tidy(axes, ylabel=f"{NAMES[who]}: loss")
    _leave_room(axes, shown)
    return [axes]


def _draw_quality(axes: Axes, metrics: _Of, who: str, scale: StageScale) -> list[Axes]:
    """Draw accuracies in percent, or validation errors; return the axes if there was anything."""
    shown: list[Points] = []
    for name in metrics:
        if name.endswith("/accuracy") and name.partition("/")[0] in ("student", "teacher"):
            owner = "teacher" if name.startswith("teacher/") else who
            shown.append([(step, 100 * value) for step, value in metrics[name]])
            running_line(axes, shown[-1], COLORS[owner], NAMES[owner])
    percent = "validate/mse" not in metrics
    validated = metrics.get("validate/accuracy" if percent else "validate/mse", [])
    if validated:
        points = [(step, 100 * value if percent else value) for step, value in validated]
        _draw_validation(axes, points, who, scale, higher_is_better=percent)
        shown.append(points)
    if not shown:
        return []
    if percent:
        chances = {scale.chance: "chance", scale.validation_chance: "chance, validation"}
        if len({scale.chance, scale.validation_chance} - {None}) == 1:
            chances = dict.fromkeys(chances, "chance")
        for chance, name in chances.items():
            if chance is not None:
                mark_chance(axes, 100 * chance, name)
                shown.append([(0, 100 * chance)])
    elif any(_spans_decades(points) for points in shown):
        axes.set_yscale("log")
    tidy(axes, ylabel=f"{NAMES[who]}: " + ("accuracy (%)" if percent else "squared error"))
    _leave_room(axes, shown)
    if percent:  # the room for the legend is no accuracy
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.4g}" if value <= 100 else "")
    return [axes]


def _draw_validation(
    axes: Axes, points: Points, who: str, scale: StageScale, higher_is_better: bool
) -> None:
    """Draw validations as points and a line at the one whose state was kept."""
    label = "validation" if scale.tasks is None else f"validation, {scale.tasks} tasks"
    axes.plot(*zip(*points, strict=True), "o", ms=4.5, color=COLORS[who], mfc="white", mew=1.3,
              label=label, zorder=4)  # fmt: skip
    if scale.keeps_best:
        # The first of equal ones: that is how it is chosen.
        step, best = (max if higher_is_better else min)(points, key=lambda point: point[1])
        shown = f"{best:.1f} %" if higher_is_better else f"{best:.3g}"
        axes.axvline(step, color=COLORS[who], lw=1.0, ls=(0, (2, 2)), zorder=1.5,
                     label=f"kept: {shown}, step {step}")  # fmt: skip


def _alike(qualities: Sequence[Axes]) -> None:
    """Give the axes of student and twin the same limits, so that they can be compared."""
    if len(qualities) == 2 and qualities[0].get_yscale() == qualities[1].get_yscale():
        limits = [axes.get_ylim() for axes in qualities]
        for axes in qualities:
            axes.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))


def _finish(used: Sequence[Axes], stage: str, last: int) -> None:
    """Give the axes of a column title, legends and the same steps."""
    for i, axes in enumerate(used):
        if i == 0:
            tidy(axes, title=stage.replace("_", " "))
        if i + 1 == len(used):
            axes.set_xlabel("step")
        axes.set_xlim(-0.02 * last, 1.02 * last)
        axes.locator_params(axis="x", integer=True)
        axes.legend(loc="upper right", ncols=LEGEND_COLUMNS, fontsize=7.5, edgecolor="none",
                    labelcolor=INK, columnspacing=1.2, handlelength=1.7,
                    framealpha=0.85, borderpad=0.2)  # fmt: skip


def _spans_decades(points: Points) -> bool:
    """Tell whether the trend of a curve, not its noise, needs a logarithmic axis."""
    values = _course(points)
    return min(values) > 0 and max(values) > DECADES * min(values)


def _course(points: Points) -> list[float]:
    values = [value for _, value in points]
    return running_mean(values, _window(values)) if len(values) > FEW else values


def _leave_room(axes: Axes, shown: Sequence[Points]) -> None:
    """Set the vertical limits to the data without single outliers, with room for a legend."""
    lines = -(-len(axes.get_legend_handles_labels()[0]) // LEGEND_COLUMNS)
    values: list[float] = []
    for points in shown:
        ordered = sorted(value for _, value in points)
        spare = len(ordered) // 50
        values += [ordered[spare], ordered[-1 - spare], *_course(points)]
    log = axes.get_yscale() == "log"
    if log:
        values = [math.log10(value) for value in values if value > 0]
    low, high = min(values), max(values)
    if not log and 0 < low < 0.4 * high:
        low = 0.0
    span = high - low or abs(high) or 1.0
    low, high = low - 0.05 * span, low + 1.05 * span / (1 - HEADROOM * lines)
    axes.set_ylim(*((10**low, 10**high) if log else (low, high)))


def running_line(axes: Axes, points: Points, color: str, label: str, thin: bool = False) -> None:
    """Draw the values of single steps pale, and their running mean strong over them."""
    steps, values = zip(*points, strict=True)
    if len(points) > FEW:
        axes.plot(steps, values, color=color, lw=0.7, alpha=0.12 if thin else 0.22)
        values = tuple(running_mean(values, _window(values)))
    style = {"lw": 1.2, "ls": "--"} if thin else {"lw": 1.9}
    axes.plot(steps, values, color=color, label=label, **style)


def _window(values: Sequence[float]) -> int:
    return max(3, len(values) // 25)


def running_mean(values: Sequence[float], window: int) -> list[float]:
    """Return the means over the last `window` values, over fewer at the start."""
    means: list[float] = []
    total = 0.0
    for i, value in enumerate(values):
        total += value
        if i >= window:
            total -= values[i - window]
        means.append(total / min(i + 1, window))
    return means
