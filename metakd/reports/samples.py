"""sample_tasks.png: what a task looks like, and what teacher and student say of it."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from metakd.reports.drawing import COLORS, INK, NAMES, canvas, save, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

__all__ = ["sample_functions", "sample_tasks"]

RIGHT, WRONG = "#1a8a4a", "#c62828"
MAX_SHOTS = 5
"""Support images of a class that are drawn."""


def sample_tasks(
    support: NDArray[Any],
    query: NDArray[Any],
    labels: NDArray[Any],
    predictions: Mapping[str, NDArray[Any]],
    out: Path,
    class_names: Sequence[Sequence[str]] | None = None,
) -> Path:
    """Draw tasks, one below the other: support images on the left, queries with answers right.

    Args:
        support: [tasks, ways, shots, channels, height, width], any range; 1 or 3 channels.
        query: [tasks, queries, channels, height, width]; eight look well.
        labels: [tasks, queries] integers, the queries' true classes 0 … ways-1.
        predictions: model (`student`, `teacher`, …) -> [tasks, queries] integers.
        out: the PNG to write.
        class_names: [tasks][ways], shown above the support images where given.
    """
    tasks, ways, shots = support.shape[:3]
    shots = min(shots, MAX_SHOTS)
    queries = query.shape[1]
    lines = max(1, min(shots // 2, queries // 4))  # beside several shots is room for several
    columns = -(-queries // lines)
    height = 0.75 + max(0.72 * shots, lines * (0.95 + 0.17 * len(predictions)))
    figure = canvas(0.8 * (ways + columns) + 0.9, height * tasks + 0.2)
    low, high = float(min(support.min(), query.min())), float(max(support.max(), query.max()))
    letters = string.ascii_uppercase
    rows = figure.subfigures(tasks, 1, squeeze=False, hspace=0.03)[:, 0]
    for t, row in enumerate(rows):
        left, right = row.subfigures(1, 2, width_ratios=[ways + 0.3, columns + 0.9])
        left.suptitle(f"task {t + 1}: learns from", fontsize=10, color=INK, fontweight="bold")
        right.suptitle("is asked", fontsize=10, color=INK, fontweight="bold")
        shown = left.subplots(shots, ways, squeeze=False)
        for w in range(ways):
            for k in range(shots):
                _image(shown[k][w], support[t, w, k], low, high)
            name = "" if class_names is None else f"\n{class_names[t][w][:12]}"
            shown[0][w].set_title(f"{letters[w % 26]}{name}", fontsize=9, color=INK)
        asked = right.subplots(lines, columns, squeeze=False).ravel()
        for axes in asked[queries:]:
            axes.set_visible(False)
        for q, axes in enumerate(asked[:queries]):
            _image(axes, query[t, q], low, high)
            truth = int(labels[t, q])
            axes.set_title(letters[truth % 26], fontsize=9, color=INK)
            for i, (model, answers) in enumerate(predictions.items()):
                answer = int(answers[t, q])
                color = RIGHT if answer == truth else WRONG
                mark = "✓" if answer == truth else "✗"
                axes.annotate(f"{letters[answer % 26]} {mark}", (0.5, 0), (0, -9 - 12 * i),
                              xycoords="axes fraction", textcoords="offset points", ha="center",
                              va="center", fontsize=9, color=color)  # fmt: skip
                if q % columns == 0:
                    axes.annotate(NAMES.get(model, model), (0, 0), (-3, -9 - 12 * i), ha="right",
                                  xycoords="axes fraction", textcoords="offset points",
                                  va="center", fontsize=8.5,
                                  color=COLORS.get(model, INK))  # fmt: skip
    return save(figure, out)


def sample_functions(
    support: tuple[NDArray[Any], NDArray[Any]],
    query: tuple[NDArray[Any], NDArray[Any]],
    predictions: Mapping[str, NDArray[Any]],
    out: Path,
) -> Path:
    """Draw regression tasks of one input and one output side by side.

    Args:
        support: inputs and targets, each [tasks, shots].
        query: inputs and true values, each [tasks, points].
        predictions: model -> [tasks, points].
        out: the PNG to write.
    """
    tasks = support[0].shape[0]
    figure = canvas(3.4 * tasks, 3.3)
    grid = figure.subplots(1, tasks, squeeze=False, sharey=True)[0]
    for t, axes in enumerate(grid):
        order = np.argsort(query[0][t])
        axes.plot(query[0][t][order], query[1][t][order], color="#aaaaaa", lw=1.4, label="truth")
        for model, values in predictions.items():
            axes.plot(query[0][t][order], values[t][order], lw=1.9,
                      color=COLORS.get(model, INK), label=NAMES.get(model, model))  # fmt: skip
        axes.plot(support[0][t], support[1][t], "o", color="black", ms=5, label="learns from")
        tidy(axes, title=f"task {t + 1}")
    handles, names = grid[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    return save(figure, out)


def _image(axes: Axes, image: NDArray[Any], low: float, high: float) -> None:
    """Show [channels, height, width] without ticks; grey for one channel."""
    span = (np.moveaxis(image, 0, -1) - low) / max(high - low, 1e-12)
    if span.shape[-1] == 1:
        axes.imshow(span[..., 0], cmap="gray", vmin=0, vmax=1)
    else:
        axes.imshow(span)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color("#cccccc")
