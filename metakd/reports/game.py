"""adversarial_game.png: generator, discriminator, teacher and student over training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from metakd.reports.curves import Points, read_series, running_line
from metakd.reports.drawing import COLORS, INK, NAMES, canvas, drawing, mark_chance, save, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.gridspec import SubplotSpec

__all__ = ["adversarial_game"]

_STAGE = "meta_train"
_PLAYERS = {"discriminator": "#8856a7", "generator": "#2a9d72"}
_BOTH = "#b5476b"
"""Colour of quantities that teacher and student share."""
_COLUMNS = 3

_Of = Mapping[str, Points]


@drawing
def adversarial_game(metrics_path: Path, out: Path, chance: float | None = None) -> Path | None:
    """Draw the game of `algorithm=adversarial` over its meta-iterations (method.md section 6).

    Panels: the discriminator's accuracy beside that of a guess, both losses, both networks'
    accuracies, how often they agree, their divergence, and norm and spread of the offsets. What
    was not logged (there is no discriminator with `game_loss=sinkhorn`) has no panel.

    Args:
        metrics_path: a run's metrics.jsonl.
        out: the PNG to write.
        chance: accuracy of a guess in a training task, 0 to 1.

    Returns:
        `out`, or None if no game was logged.
    """
    series = read_series(metrics_path) if metrics_path.exists() else {}
    metrics = {n: p for n, p in series.get(_STAGE, {}).items() if len(p) > 1}
    if not any(name.startswith("adversarial/") for name in metrics):
        return None
    panels = [
        draw
        for draw, needs in (
            (_discriminator, ("adversarial/discriminator_accuracy",)),
            (_losses, ("adversarial/discriminator_loss", "adversarial/generator_loss")),
            (_accuracies, ("teacher/accuracy", "student/accuracy")),
            (_agreement, ("adversarial/agreement",)),
            (_divergence, ("adversarial/kl",)),
            (_offsets, ("adversarial/offset_norm", "adversarial/offset_spread")),
        )
        if any(name in metrics for name in needs)
    ]
    columns = 2 if len(panels) == 4 else min(_COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    figure = canvas(4.3 * columns, 3.0 * rows)
    figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.08, wspace=0.03, hspace=0.04)
    grid = figure.add_gridspec(rows, columns)
    drawn: list[Axes] = []
    for i, draw in enumerate(panels):
        here = draw(figure, grid[divmod(i, columns)], metrics)
        if draw is _accuracies and chance is not None:
            mark_chance(here[0], 100.0 * chance)
        if i + columns >= len(panels):  # nothing below it
            here[-1].set_xlabel("meta-iteration")
        drawn += here
    last = max(step for points in metrics.values() for step, _ in points)
    for axes in drawn:
        axes.set_xlim(0, last)
        axes.locator_params(axis="x", integer=True)
    return save(figure, out)


def _axes(figure: Figure, place: SubplotSpec, title: str, ylabel: str) -> Axes:
    axes: Axes = figure.add_subplot(place)
    tidy(axes, title=title, ylabel=ylabel)
    return axes


def _percent(points: Points) -> Points:
    return [(step, 100.0 * value) for step, value in points]


def _discriminator(figure: Figure, place: SubplotSpec, of: _Of) -> list[Axes]:
    points = _percent(of["adversarial/discriminator_accuracy"])
    guess = 100.0 * of.get("adversarial/discriminator_chance", [(0, 0.5)])[-1][1]
    axes = _axes(figure, place, "discriminator is right", "of predictions (%)")
    running_line(axes, points, _PLAYERS["discriminator"], "discriminator")
    axes.set_ylim(min(guess - 12.0, min(value for _, value in points) - 2.0), 103.0)
    axes.axhline(guess, color=INK, lw=1.0, ls=(0, (4, 3)), zorder=1.5)
    axes.annotate(
        f"{guess:.3g} %: cannot tell", (1.0, guess), (-4, -6), xycoords=("axes fraction", "data"),
        textcoords="offset points", ha="right", va="top", fontsize=8, color=INK,
        bbox={"fc": "white", "ec": "none", "alpha": 0.8, "pad": 1.0},
    )  # fmt: skip
    return [axes]


def _losses(figure: Figure, place: SubplotSpec, of: _Of) -> list[Axes]:
    axes = _axes(figure, place, "losses", "loss")
    for who, symbol in (("discriminator", "$L_D$"), ("generator", "$L_G$")):
        if f"adversarial/{who}_loss" in of:
            points = of[f"adversarial/{who}_loss"]
            running_line(axes, points, _PLAYERS[who], f"{symbol} {who}")
    _legend(axes)
    return [axes]


def _accuracies(figure: Figure, place: SubplotSpec, of: _Of) -> list[Axes]:
    axes = _axes(figure, place, "accuracy on the query set", "accuracy (%)")
    for who in ("teacher", "student"):
        if f"{who}/accuracy" in of:
            running_line(axes, _percent(of[f"{who}/accuracy"]), COLORS[who], NAMES[who])
    _legend(axes)
    return [axes]


def _agreement(figure: Figure, place: SubplotSpec, of: _Of) -> list[Axes]:
    axes = _axes(figure, place, "teacher and student agree", "same class first (%)")
    running_line(axes, _percent(of["adversarial/agreement"]), _BOTH, "agreement")
    return [axes]


def _divergence(figure: Figure, place: SubplotSpec, of: _Of) -> list[Axes]:
    axes = _axes(figure, place, "KL(teacher || student)", "nats")
    running_line(axes, of["adversarial/kl"], _BOTH, "KL")
    axes.set_ylim(bottom=0.0)
    return [axes]


def _offsets(figure: Figure, place: SubplotSpec, of: _Of) -> list[Axes]:
    """Draw norm over spread, each in its own unit."""
    shown = [
        (name, label)
        for name, label in (("norm", "norm"), ("spread", "relative spread"))
        if f"adversarial/offset_{name}" in of
    ]
    grid = place.subgridspec(len(shown), 1)
    drawn = []
    for i, (name, label) in enumerate(shown):
        below = i + 1 == len(shown)
        axes = _axes(figure, grid[i, 0], "" if i else "generator's offsets", label)
        points = of[f"adversarial/offset_{name}"]
        running_line(axes, points, _PLAYERS["generator"], label)
        axes.set_ylim(0.0, 1.15 * max(value for _, value in points) or 1.0)
        axes.locator_params(axis="y", nbins=4)
        axes.tick_params(labelbottom=below)
        drawn.append(axes)
    return drawn


def _legend(axes: Axes) -> None:
    axes.legend(fontsize=8, frameon=False, labelcolor=INK)
