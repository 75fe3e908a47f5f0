"""confusion.png: the confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metakd.reports.drawing import INK, canvas, drawing, plain, save, tidy
from metakd.reports.statistics import wilson95

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["WHOLE", "confused_pairs", "confusion_figure"]

WHOLE = 30
"""Most classes for which the whole matrix is drawn."""

PAIRS = 20
"""With more classes: the number of pairs drawn."""

RIGHT, WRONG = "Blues", "Oranges"
"""Colour maps of the diagonal and of errors: an error of 5 % must show beside 95 % correct."""

LONGEST = 26
"""Characters of a class's name that are shown."""


@drawing
def confusion_figure(
    matrix: ArrayLike,
    class_names: Sequence[str],
    path: Path,
    title: str = "",
    asked: ArrayLike | None = None,
) -> Path | None:
    """Draw the confusion matrix of up to 30 classes, else the most confused pairs.

    Shares are of the queries of a class; where not every class was a choice for every query
    (few-shot tasks), of those for which it was one.

    Args:
        matrix: [n, n] counts; row: the true class, column: the answer.
        class_names: [n]; any text.
        path: the PNG to write.
        title: above it.
        asked: [n, n] counts: queries of the row's class for which the column's class was a choice;
            None: every query had every class to choose from, and an answer.

    Returns:
        `path`, or None if nothing was asked.

    Raises:
        ValueError: the shapes do not match.
    """
    counts = np.asarray(matrix, dtype=np.int64)
    n = len(class_names)
    if counts.shape != (n, n):
        raise ValueError(f"a matrix of shape {counts.shape} does not fit {n} classes")
    if asked is None:
        chances = np.broadcast_to(counts.sum(axis=1, keepdims=True), counts.shape)
    else:
        chances = np.asarray(asked, dtype=np.int64)
        if chances.shape != counts.shape:
            raise ValueError(f"{counts.shape} answers do not match {chances.shape} questions")
    if not chances.any():
        return None
    names = [plain(name, LONGEST) for name in class_names]
    draw = _draw_matrix if n <= WHOLE else _draw_pairs
    return draw(counts, chances, names, path, title)


def confused_pairs(
    counts: NDArray[np.int64], asked: NDArray[np.int64], longest: int = PAIRS
) -> list[tuple[int, int]]:
    """Return the pairs (true class, answer) that are confused most often, worst first.

    Ordered by the lower end of the 95 % interval (Wilson's) of the share, so that one of two does
    not come before 40 of 100.

    Args:
        counts: [n, n] answers; row: the true class.
        asked: [n, n] queries for which the column's class was a choice.
        longest: pairs at most.
    """
    wrong = [(int(i), int(j)) for i, j in np.argwhere(counts > 0) if i != j]

    def at_least(pair: tuple[int, int]) -> tuple[float, int]:
        return -wilson95(int(counts[pair]), int(asked[pair]))[0], -int(counts[pair])

    return sorted(wrong, key=at_least)[:longest]


def _draw_matrix(
    counts: NDArray[np.int64], asked: NDArray[np.int64], names: list[str], path: Path, title: str
) -> Path:
    n = len(names)
    with np.errstate(invalid="ignore"):
        percent = 100.0 * counts / asked  # NaN where it was never a choice
    cell = 0.52 if n <= 12 else 0.34
    size = 6.5 if n > 12 else 9
    longest = max(len(name) for name in names)
    figure = canvas(
        max(cell * n + 0.085 * longest + 2.2, 4.4), max(cell * n + 0.06 * longest + 1.1, 3.2)
    )
    axes = figure.subplots()
    diagonal = np.eye(n, dtype=bool)
    scale = max(10.0, float(np.nanmax(np.where(diagonal, np.nan, percent), initial=0.0)))
    shown: list[Any] = []
    for own, cmap, top in ((diagonal, RIGHT, 100.0), (~diagonal, WRONG, scale)):
        part = np.ma.masked_invalid(np.where(own, percent, np.nan))
        shown.append(axes.imshow(part, cmap=cmap, vmin=0.0, vmax=top, aspect="equal"))
    for i in range(n):
        for j in range(n):
            _number(axes, percent[i, j], (j, i), scale if i != j else 100.0, size)
    slanted: dict[str, Any] = {"rotation": 40, "ha": "right"} if longest > 3 else {}
    axes.set_xticks(range(n), names, rotation_mode="anchor", parse_math=False, **slanted)
    axes.set_yticks(range(n), names, parse_math=False)
    tidy(axes, xlabel="answer", ylabel="true class")
    axes.set_title(title, parse_math=False, fontsize=11, color=INK, fontweight="bold")
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0, labelsize=max(size, 7))
    for image, label in zip(shown, ("right (%)", "taken for it (%)"), strict=True):
        bar = figure.colorbar(image, ax=axes, shrink=0.6, aspect=22, pad=0.02)
        bar.set_label(label, fontsize=8, color=INK)
        bar.ax.tick_params(labelsize=7.5, colors=INK, length=2)
        bar.outline.set_visible(False)
    return save(figure, path)


def _number(axes: Axes, percent: float, place: tuple[int, int], top: float, size: float) -> None:
    """Write a share into its cell; nothing if it is 0 or the class was never a choice."""
    if not percent > 0:
        return
    text = "<1" if percent < 0.5 else f"{percent:.0f}"
    color = "white" if percent > 0.6 * top else INK
    axes.text(*place, text, ha="center", va="center", fontsize=size, color=color)


def _draw_pairs(
    counts: NDArray[np.int64], asked: NDArray[np.int64], names: list[str], path: Path, title: str
) -> Path:
    pairs = confused_pairs(counts, asked)
    figure = canvas(8.2, 0.27 * max(len(pairs), 2) + 1.3)
    axes = figure.subplots()
    percent = [100.0 * counts[pair] / asked[pair] for pair in pairs]
    rows = range(len(pairs))
    axes.barh(rows, percent, height=0.72, color="#d9772b")
    for row, pair, value in zip(rows, pairs, percent, strict=True):
        axes.annotate(f"{value:.0f} %  ({counts[pair]} of {asked[pair]})", (value, row), (4, 0),
                      textcoords="offset points", va="center", fontsize=8, color=INK)  # fmt: skip
    labels = [f"{names[i]}  →  {names[j]}" for i, j in pairs]
    axes.set_yticks(rows, labels, parse_math=False)
    axes.set_ylim(len(pairs) - 0.4, -0.6)
    axes.set_xlim(0, max([10.0, *percent]) * 1.22)
    tidy(axes, xlabel="queries of the first class that were answered with the second (%)")
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color="#e3e3e3", linewidth=0.8)
    axes.tick_params(axis="y", length=0, labelsize=8.5)
    axes.set_title(title, parse_math=False, fontsize=11, color=INK, fontweight="bold")
    if not pairs:
        axes.text(0.5, 0.5, "no class was taken for another", transform=axes.transAxes,
                  ha="center", va="center", fontsize=10, color=INK)  # fmt: skip
        axes.set_yticks([])
    return save(figure, path)
