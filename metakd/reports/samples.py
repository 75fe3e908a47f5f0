"""sample_tasks.png of classification: tasks, with the predictions of teacher and student."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from metakd.reports.drawing import COLORS, INK, NAMES, canvas, drawing, plain, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

__all__ = ["sample_tasks"]

RIGHT, WRONG = "#1a8a4a", "#c62828"
MAX_SHOTS = 5
"""Support images of a class that are drawn."""

CELL, LINE, HEAD, GAP, ASIDE = 0.94, 0.22, 0.45, 0.3, 1.15
"""In cells: side of an image, line of text, title of a task, room below it, room for names."""


@drawing
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
        predictions: model (`student`, `teacher`, …) -> [tasks, queries] integers; -1: no answer.
        out: the PNG to write.
        class_names: [tasks][ways], shown above the support images where given.
    """
    tasks, ways, shots = support.shape[:3]
    shots = min(shots, MAX_SHOTS)
    queries = query.shape[1]
    lines = max(1, min(shots // 2, queries // 4))  # beside several shots is room for several
    columns = -(-queries // lines)
    answers_height = LINE * len(predictions)
    names_height = LINE * (1 if class_names is None else 2)
    # One system of coordinates for all, a cell being 1 by 1, y downwards: laying out an Axes for
    # each of so many images takes seconds.
    height = HEAD + names_height + max(shots, lines * (1 + LINE + answers_height) - LINE) + GAP
    width = ways + ASIDE + columns
    figure = canvas(0.8 * (width + 0.2), 0.8 * height * tasks)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1))
    low, high = float(min(support.min(), query.min())), float(max(support.max(), query.max()))
    words: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 9, "color": INK}
    words["parse_math"] = False  # a "$" in a class's name is a dollar
    title: dict[str, Any] = {**words, "ha": "left", "fontsize": 10, "fontweight": "bold"}
    for t in range(tasks):
        top = t * height
        axes.text(0, top + 0.2, f"task {t + 1}: learns from", **title)
        axes.text(ways + ASIDE, top + 0.2, "is asked", **title)
        top += HEAD + names_height
        for w in range(ways):
            letter_at = top - names_height + LINE / 2
            axes.text(w + CELL / 2, letter_at, _letter(w), **words)
            if class_names is not None:
                name = plain(class_names[t][w], 11)
                axes.text(w + CELL / 2, top - LINE / 2, name, **{**words, "fontsize": 7.5})
            for k in range(shots):
                _image(axes, support[t, w, k], w, top + k, low, high)
        for q in range(queries):
            x = ways + ASIDE + q % columns
            y = top + (q // columns) * (1 + LINE + answers_height)
            truth = int(labels[t, q])
            axes.text(x + CELL / 2, y - LINE / 2, _letter(truth), **words)
            _image(axes, query[t, q], x, y, low, high)
            for i, (model, answers) in enumerate(predictions.items()):
                line = y + CELL + LINE * (i + 0.6)
                answer = int(answers[t, q])
                mark, color = ("✓", RIGHT) if answer == truth else ("✗", WRONG)
                said = f"{_letter(answer) if answer >= 0 else '–'} {mark}"
                axes.text(x + CELL / 2, line, said, **{**words, "color": color})
                if q % columns == 0:
                    named: dict[str, Any] = {"ha": "right", "color": COLORS.get(model, INK)}
                    axes.text(x - 0.1, line, NAMES.get(model, model), **{**words, **named})
    axes.set(xlim=(-0.1, width + 0.1), ylim=(height * tasks, 0), aspect="auto")
    axes.set_axis_off()
    return save(figure, out)


def _letter(number: int) -> str:
    """Return the letter of a class; a dash for -1, which is no answer."""
    return "–" if number < 0 else string.ascii_uppercase[number % 26]


def _image(axes: Axes, image: NDArray[Any], x: float, y: float, low: float, high: float) -> None:
    """Show [channels, height, width] in the cell whose upper left corner is (x, y)."""
    span = (np.moveaxis(image, 0, -1) - low) / max(high - low, 1e-12)
    place: dict[str, Any] = {
        "extent": (x, x + CELL, y + CELL, y),
        "aspect": "auto",
        "interpolation": "nearest",
    }
    if span.shape[-1] == 1:
        axes.imshow(span[..., 0], cmap="gray", vmin=0, vmax=1, **place)
    else:
        axes.imshow(span, **place)
