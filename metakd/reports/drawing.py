"""The common style of all figures, and how they are saved."""

from __future__ import annotations

import functools
import unicodedata
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

__all__ = [
    "COLORS",
    "GRID",
    "INK",
    "NAMES",
    "canvas",
    "drawing",
    "mark_chance",
    "plain",
    "save",
    "tidy",
]

COLORS = {
    "student": "#0b6bb3",
    "compressed": "#7a3fa0",
    "student_alone": "#e08a00",
    "teacher": "#4d4d4d",
}
"""A colour for each model, the same in every figure, safe for colour blindness."""

NAMES = {
    "student": "student",
    "compressed": "compressed",
    "student_alone": "student alone",
    "teacher": "teacher",
}
INK = "#333333"
GRID = "#e3e3e3"

FURTHER_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Source Han Sans SC",
    "WenQuanYi Zen Hei",
    "PingFang SC",
    "Hiragino Sans",
    "Microsoft YaHei",
    "Malgun Gothic",
    "Nirmala UI",
    "Noto Sans Devanagari",
    "Arial Unicode MS",
)
"""Fonts for characters that matplotlib's default lacks, where they are installed."""

UNPRINTABLE = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
"""Kinds of characters (Unicode's general categories) that cannot be drawn."""

P = ParamSpec("P")
R = TypeVar("R")


def drawing(draw: Callable[P, R]) -> Callable[P, R]:
    """Let `draw` draw on white, whatever matplotlib's settings are.

    A matplotlibrc or a style of a notebook (a dark one, say) would recolour half of a figure whose
    colours are chosen for white.
    """

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> R:
        import matplotlib
        from matplotlib import font_manager

        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            installed = set(font_manager.get_font_names())
            further = [name for name in FURTHER_FONTS if name in installed]
            matplotlib.rcParams["font.family"] = ["DejaVu Sans", *further]
            return draw(*args, **kwargs)

    return drawn


def canvas(width: float, height: float) -> Figure:
    """Return an empty figure of `width` by `height` inches.

    It is not registered with pyplot, which keeps global state.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def tidy(axes: Axes, **labels: Any) -> None:
    """Apply the common style to axes.

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


def mark_chance(axes: Axes, percent: float, name: str = "chance") -> None:
    """Draw chance level as a dotted line with its name at the right end."""
    axes.axhline(percent, color="#8a8a8a", lw=1, ls=":", zorder=0.6)
    axes.annotate(f"{name} {percent:.3g} %", (1, percent), (0, 2), ha="right", va="bottom",
                  xycoords=("axes fraction", "data"), textcoords="offset points", fontsize=7.5,
                  color="#6f6f6f", zorder=0.7)  # fmt: skip


def plain(name: str, longest: int = 40) -> str:
    """Return a name that a user chose as text that can be drawn, at most `longest` characters.

    Of a longer one beginning and end are kept: names often differ in the last letters. What
    cannot be drawn (half a character of a file name that is not UTF-8, a line break) becomes the
    replacement character. Draw it with ``parse_math=False``: a ``$`` in it is a dollar.
    """
    shown = "".join("\ufffd" if unicodedata.category(c) in UNPRINTABLE else c for c in name)
    if len(shown) <= longest:
        return shown
    head = longest // 2
    return f"{shown[:head].rstrip()}…{shown[len(shown) - (longest - 1 - head) :].lstrip()}"


def save(figure: Figure, out: Path) -> Path:
    """Write `figure` to the PNG `out` and return it; the folder is created if necessary."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        # A letter that no font has is drawn as a box; nobody can do anything about a warning.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.set_dpi(130)
        # `savefig` would draw everything twice, once to lay it out.
        cast("FigureCanvasAgg", figure.canvas).print_png(str(out))
    return out
