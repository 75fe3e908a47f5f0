"""learning_curves.png: losses and accuracies of every stage, from metrics.jsonl."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from metakd.reports.drawing import COLORS, INK, NAMES, canvas, save, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Points", "learning_curves", "read_series", "running_line"]

ALONE = "_alone"
"""Ending of the stages of the undistilled twin, e.g. `meta_train_alone`."""

TERMS = ("#8856a7", "#2a9d72", "#c0392b", "#7f7f7f")
"""Colours of a loss's terms."""

Points = list[tuple[int, float]]


def read_series(path: Path) -> dict[str, dict[str, Points]]:
    """Return stage -> metric -> [(step, value)] of a metrics.jsonl, in order of appearance.

    Values that were not finite, and a last line that is not whole yet, are left out.
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


def learning_curves(metrics_path: Path, out: Path) -> Path | None:
    """Draw one column a stage: the loss with its terms above, accuracies below.

    Stages of the undistilled twin (`<stage>_alone`) are drawn into the stage that they mirror.
    Pale lines are the values of single steps, strong ones their running means.

    Args:
        metrics_path: a run's metrics.jsonl.
        out: the PNG to write.

    Returns:
        `out`, or None if nothing was logged.
    """
    series = read_series(metrics_path) if metrics_path.exists() else {}
    stages = list(dict.fromkeys(name.removesuffix(ALONE) for name in series))
    drawn = [s for s in stages if any(len(p) > 1 for p in _all_points(series, s))]
    if not drawn:
        return None
    figure = canvas(max(5.2, 4.1 * len(drawn)), 5.6)
    grid = figure.subplots(2, len(drawn), squeeze=False)
    for column, stage in enumerate(drawn):
        of_student = series.get(stage, {})
        of_twin = series.get(stage + ALONE, {})
        # The teacher's own training logs its accuracy as the learner's.
        model = "teacher" if stage == "pretrain" else "student"
        _draw_losses(grid[0][column], of_student, of_twin, model)
        _draw_accuracies(grid[1][column], of_student, of_twin, model)
        tidy(grid[0][column], title=stage.replace("_", " "))
        tidy(grid[1][column], xlabel="step")
    grid[0][0].set_ylabel("loss")
    grid[1][0].set_ylabel("accuracy (%)")
    for axes in grid.flat:
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8, frameon=False, labelcolor=INK)
        else:
            axes.set_visible(False)
    return save(figure, out)


def _all_points(series: Mapping[str, Mapping[str, Points]], stage: str) -> list[Points]:
    return [p for name in (stage, stage + ALONE) for p in series.get(name, {}).values()]


def _draw_losses(
    axes: Axes, student: Mapping[str, Points], twin: Mapping[str, Points], model: str
) -> None:
    terms = [name for name in student if name.startswith("loss/")]
    if len(terms) > 1:  # a single term is the loss itself
        for name, color in zip(terms, TERMS * len(terms), strict=False):
            running_line(axes, student[name], color, name, thin=True)
    if "loss" in twin:
        running_line(axes, twin["loss"], COLORS["student_alone"], NAMES["student_alone"])
    if "loss" in student:
        running_line(axes, student["loss"], COLORS[model], NAMES[model])


def _draw_accuracies(
    axes: Axes, student: Mapping[str, Points], twin: Mapping[str, Points], model: str
) -> None:
    for metrics, who in ((twin, "student_alone"), (student, model)):
        for name, points in metrics.items():
            if not name.endswith("accuracy") or name.startswith("adversarial"):
                continue
            percent = [(step, 100 * value) for step, value in points]
            if name == "validate/accuracy":
                steps, values = zip(*percent, strict=True)
                label = f"{NAMES[who]}, validation"
                axes.plot(steps, values, "o-", ms=4.5, lw=1.2, color=COLORS[who], mfc="white",
                          label=label, zorder=4)  # fmt: skip
            else:
                owner = "teacher" if name.startswith("teacher/") else who
                running_line(axes, percent, COLORS[owner], NAMES[owner])


def running_line(axes: Axes, points: Points, color: str, label: str, thin: bool = False) -> None:
    """Draw the values of single steps pale, and their running mean strong over them."""
    steps, values = zip(*points, strict=True)
    if len(points) > 30:
        axes.plot(steps, values, color=color, lw=0.7, alpha=0.12 if thin else 0.22)
        values = tuple(running_mean(values, max(3, len(values) // 25)))
    style = {"lw": 1.1, "ls": "--"} if thin else {"lw": 1.9}
    axes.plot(steps, values, color=color, label=label, **style)


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
