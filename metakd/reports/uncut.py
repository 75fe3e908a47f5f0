"""Tables at their full width, whatever the window's."""

from __future__ import annotations

from rich.console import Console
from rich.measure import Measurement
from rich.segment import Segments
from rich.table import Table

__all__ = ["print_uncut"]


def print_uncut(table: Table, console: Console) -> None:
    """Print a table at its full width.

    A figure that is cut off is worse than a line that is too long for the window.
    """
    wide = console.options.update(width=100_000)
    needed = Measurement.get(console, wide, table).maximum
    wide = wide.update(width=max(console.width, needed))
    console.print(Segments(console.render(table, wide)), crop=False, overflow="ignore", end="")
