"""Figures that compare the models of a run, from results.json."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from metakd.reports.drawing import COLORS, INK, NAMES, canvas, drawing, mark_chance, save, tidy
from metakd.runs.records import Measurement, Results, WholeMeasurement, shots_word

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["accuracy_against_steps", "models_compared"]

ORDER = ("student_alone", "student", "compressed", "teacher")


@drawing
def models_compared(results: Results, out: Path) -> Path | None:
    """Draw bars with 95 % intervals: the student alone, distilled, and the teacher, by shots.

    Args:
        results: the run's.
        out: the PNG to write.

    Returns:
        `out`, or None if no model was measured.
    """
    measures = {
        name: {k: e for k, e in results.models[name].headlines().items() if e.value is not None}
        for name in ORDER
        if name in results.models
    }
    measures = {m: found for m, found in measures.items() if found}
    if not measures:
        return None
    shots = sorted({k for found in measures.values() for k in found})
    first = next(iter(next(iter(measures.values())).values()))
    scale, digits = (100.0, 1) if first.measure == "accuracy" else (1.0, 2)
    names = dict(NAMES)
    if "student" in measures and "student_alone" in measures:
        names["student"] = "student (distilled)"
    figure = canvas(max(4.6, 1.4 + 0.62 * len(shots) * (len(measures) + 0.9)), 3.9)
    axes = figure.subplots()
    width = 0.74 / max(len(measures), 2)
    for i, (model, found) in enumerate(measures.items()):
        for j, k in enumerate(shots):
            if k not in found:
                continue
            value, half = (scale * x for x in _value(found[k]))
            x = j + (i - (len(measures) - 1) / 2) * width
            axes.bar(
                x, value, width * 0.88, color=COLORS[model], label=names[model] if not j else None
            )
            axes.errorbar(x, value, half, color="black", capsize=3, lw=1.1)
            axes.annotate(f"{value:.{digits}f}", (x, value + half), (0, 3), ha="center", fontsize=9,
                          textcoords="offset points", color=INK)  # fmt: skip
    axes.set_xticks(range(len(shots)), [shots_word(k) for k in shots])
    axes.margins(y=0.12)
    axes.set_xlim(-0.55, len(shots) - 0.32)
    if isinstance(first, WholeMeasurement):
        title, label = f"all {first.classes} classes", "accuracy (%)"
        if first.classes:
            mark_chance(axes, 100.0 / first.classes)
    elif first.ways is not None:
        mark_chance(axes, 100.0 / first.ways)
        title, label = f"{first.ways}-way tasks of unseen classes", "accuracy (%)"
    else:
        title, label = "unseen tasks", "mean squared error"
    entries = [entry for found in measures.values() for entry in found.values()]
    over = first.over if isinstance(first, WholeMeasurement) else _tasks(entries)
    title += f"\n{over}, 95 % intervals"
    tidy(axes, title=title, ylabel=label)
    axes.tick_params(axis="x", length=0, labelsize=10)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return save(figure, out)


@drawing
def accuracy_against_steps(results: Results, out: Path) -> Path | None:
    """Draw accuracy (or error) after 0 … K adaptation steps, a panel for each number of shots.

    Transductive curves are dashed. Bands are 95 % intervals.

    Args:
        results: the run's.
        out: the PNG to write.

    Returns:
        `out`, or None if no model was measured after different numbers of steps.
    """
    curves: dict[int, dict[tuple[str, str], dict[int, Measurement]]] = {}
    for name in ORDER:
        for entry in results.models[name].fewshot_all if name in results.models else ():
            if entry.steps is not None and entry.shots is not None and entry.value is not None:
                panel = curves.setdefault(entry.shots, {})
                panel.setdefault((name, entry.batchnorm or ""), {})[entry.steps] = entry
    panels = {
        shots: {key: curve for key, curve in panel.items() if len(curve) > 1}
        for shots, panel in sorted(curves.items())
    }
    panels = {shots: panel for shots, panel in panels.items() if panel}
    if not panels:
        return None
    figure = canvas(max(5.0, 4.2 * len(panels)), 3.9)
    grid = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axes, (shots, panel) in zip(grid, panels.items(), strict=True):
        for (model, mode), curve in panel.items():
            _draw_curve(axes, model, mode, curve)
        entries = [entry for curve in panel.values() for entry in curve.values()]
        for ways in {entry.ways for entry in entries if entry.ways is not None}:
            mark_chance(axes, 100.0 / ways)
        tidy(axes, title=f"{shots}-shot, {_tasks(entries)}", xlabel="adaptation steps")
        axes.xaxis.get_major_locator().set_params(integer=True)
    entry = next(iter(next(iter(next(iter(panels.values())).values())).values()))
    grid[0].set_ylabel("accuracy (%)" if entry.measure == "accuracy" else "mean squared error")
    handles = {
        n: h for axes in grid for h, n in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    columns = min(2 if len(panels) == 1 else 4, len(handles))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=columns,
                  frameon=False, fontsize=9)  # fmt: skip
    return save(figure, out)


def _draw_curve(axes: Axes, model: str, mode: str, curve: Mapping[int, Measurement]) -> None:
    steps = sorted(curve)
    scale = 100.0 if curve[steps[0]].measure == "accuracy" else 1.0
    pairs = [_value(curve[s]) for s in steps]
    middle = [scale * value for value, _ in pairs]
    low = [scale * (value - half) for value, half in pairs]
    high = [scale * (value + half) for value, half in pairs]
    second = mode == "transductive"
    label = NAMES[model] + (", transductive" if second else "")
    axes.plot(steps, middle, "--" if second else "-", marker="o", ms=3 if second else 4.5,
              lw=1.1 if second else 1.9, color=COLORS[model], label=label)  # fmt: skip
    axes.fill_between(steps, low, high, color=COLORS[model], alpha=0.08 if second else 0.16, lw=0)


def _tasks(entries: Iterable[Measurement]) -> str:
    """Return the number of evaluation tasks as text: ``600 tasks``, or ``100 to 600 tasks``."""
    counts = sorted({entry.tasks for entry in entries if entry.tasks is not None})
    if not counts:
        return "unknown number of tasks"
    few, many = counts[0], counts[-1]
    return f"{few} tasks" if few == many else f"{few} to {many} tasks"


def _value(entry: Measurement) -> tuple[float, float]:
    assert entry.value is not None  # there is no mean error where tasks diverged
    return entry.value, entry.ci95 or 0.0
