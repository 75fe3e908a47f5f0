"""The look that all figures share, and how a drawing becomes a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["COLORS", "GRID", "INK", "NAMES", "canvas", "save", "tidy"]

COLORS = {"student": "#0b6bb3", "student_alone": "#e08a00", "teacher": "#4d4d4d"}
"""One colour a model, the same in every figure; told apart with colour-blind eyes, too."""

NAMES = {"student": "student", "student_alone": "student alone", "teacher": "teacher"}
INK = "#333333"
GRID = "#e3e3e3"


def canvas(width: float, height: float) -> Figure:
    """Return an empty figure of `width` by `height` inches.

    It belongs to nobody: pyplot, which keeps global state, takes no part.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def tidy(axes: Axes, **labels: Any) -> None:
    """Give axes the common look.

    Args:
        axes: what to tidy.
        labels: passed to `Axes.set`, e.g. ``title=``, ``xlabel=``.
    """
    axes.set(**labels)
    axes.title.set(fontsize=11, color=INK, fontweight="bold")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#999999")
    axes.tick_params(colors=INK, labelsize=9, length=3)
    axes.xaxis.label.set(fontsize=9.5, color=INK)
    axes.yaxis.label.set(fontsize=9.5, color=INK)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def save(figure: Figure, out: Path) -> Path:
    """Write `figure` to `out` and return it; the folder is made if need be."""
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=130)
    return out
