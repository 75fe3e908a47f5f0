"""sample_tasks.png of regression: tasks, with what each model predicts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from metakd.reports.drawing import COLORS, INK, NAMES, canvas, drawing, save, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

__all__ = ["sample_functions"]

MOST_NAMED = 10
"""Outputs that the legend names; of more, evenly chosen ones."""


@drawing
def sample_functions(
    support: tuple[NDArray[Any], NDArray[Any]],
    query: tuple[NDArray[Any], NDArray[Any]],
    predictions: Mapping[str, NDArray[Any]],
    out: Path,
) -> Path:
    """Draw regression tasks side by side, with what the models predict.

    Functions of one input are drawn as curves, a line for each output. Over one of several inputs
    a curve would mean nothing, so predicted are drawn against true values (a parity plot).
    One curve of each model fits into one picture; else each model has a row, each output a colour.

    Args:
        support: inputs [tasks, shots, *example] and targets [tasks, shots, outputs].
        query: inputs and true values of the queries, likewise.
        predictions: model -> [tasks, queries, outputs].
        out: the PNG to write.
    """
    outputs = query[1].shape[2]
    learned, asked = _flat(support[0]), _flat(query[0])
    curves = asked.shape[2] == 1
    rows: list[list[str]] = [[model] for model in predictions]
    if curves and outputs == 1:
        rows = [list(predictions)]
    tasks = len(asked)
    figure = canvas(3.4 * tasks, 3.3 * len(rows))
    grid = figure.subplots(len(rows), tasks, squeeze=False, sharey=curves)
    for models, line in zip(rows, grid, strict=True):
        for t, axes in enumerate(line):
            predicted = {model: predictions[model][t] for model in models}
            if curves:
                points = (learned[t, :, 0], support[1][t])
                _curves(axes, points, asked[t, :, 0], query[1][t], predicted)
            else:
                _parity(axes, query[1][t], predicted[models[0]])
            whose = f"{NAMES.get(models[0], models[0])}, " if len(models) == 1 else ""
            tidy(axes, title=f"{whose}task {t + 1}")
    _legend(figure, grid[0][0], outputs)
    return save(figure, out)


def _flat(inputs: NDArray[Any]) -> NDArray[Any]:
    """Return examples of any shape as vectors, [tasks, n, inputs]."""
    return inputs.reshape(*inputs.shape[:2], -1)


def _colors(outputs: int) -> list[Any]:
    """Return a colour for each output."""
    import matplotlib

    if outputs <= 10:
        return [f"C{o}" for o in range(outputs)]
    return list(matplotlib.colormaps["viridis"](np.linspace(0, 0.95, outputs)))


def _curves(
    axes: Axes,
    learned: tuple[NDArray[Any], NDArray[Any]],
    x: NDArray[Any],
    true: NDArray[Any],
    predicted: Mapping[str, NDArray[Any]],
) -> None:
    """Draw functions of one input.

    Args:
        axes: where.
        learned: the points learned from, [shots] and [shots, outputs].
        x: [points].
        true: [points, outputs].
        predicted: model -> [points, outputs]; several models only of one output.
    """
    order, single = np.argsort(x), true.shape[1] == 1
    for o, color in zip(range(true.shape[1]), _colors(true.shape[1]), strict=True):
        truth: dict[str, Any] = {"color": "#aaaaaa"} if single else {"color": color, "ls": ":"}
        axes.plot(x[order], true[order, o], lw=1.4, label="_" if o else "truth", **truth)
        for model, values in predicted.items():
            shown, name = (COLORS.get(model, INK), NAMES.get(model, model))
            if not single:
                shown, name = color, f"output {o + 1}"
            axes.plot(x[order], values[order, o], lw=1.9, color=shown, label=name)
        points: dict[str, Any] = {"color": "black" if single else color, "mec": "black", "ms": 5}
        axes.plot(learned[0], learned[1][:, o], "o", label="_" if o else "learns from", **points)


def _parity(axes: Axes, true: NDArray[Any], predicted: NDArray[Any]) -> None:
    """Draw predicted against true values, both [points, outputs]."""
    shown = np.concatenate([true, predicted])
    shown = shown[np.isfinite(shown)]
    margin = 0.05 * float(np.ptp(shown)) or 1.0
    limits = (float(shown.min()) - margin, float(shown.max()) + margin)
    axes.plot(limits, limits, color="#aaaaaa", lw=1.4, label="exact")
    for o, color in zip(range(true.shape[1]), _colors(true.shape[1]), strict=True):
        axes.plot(true[:, o], predicted[:, o], "o", color=color, ms=4, label=f"output {o + 1}")
    axes.set(xlim=limits, ylim=limits, aspect="equal", xlabel="true value",
             ylabel="predicted value")  # fmt: skip


def _legend(figure: Figure, axes: Axes, outputs: int) -> None:
    handles, names = axes.get_legend_handles_labels()
    named = {f"output {o + 1}" for o in np.linspace(0, outputs - 1, MOST_NAMED).astype(int)}
    kept = [n for n, name in enumerate(names) if not name.startswith("output") or name in named]
    figure.legend([handles[n] for n in kept], [names[n] for n in kept],
                  loc="outside lower center", ncols=5, frameon=False, fontsize=9)  # fmt: skip
