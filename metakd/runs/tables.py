"""Tables of a run's folder as CSV files."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from metakd.runs.atomic import write_text

__all__ = ["write_table"]


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as CSV, whole or not at all; a cell is empty where its row has nothing.

    Args:
        path: the file.
        columns: those that come first, whether a row has them or not.
        rows: by column; further columns follow in the order in which they appear.
    """
    kept = [dict(row) for row in rows]
    further = dict.fromkeys(k for row in kept for k in row if k not in columns)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [*columns, *further], lineterminator="\n")
    writer.writeheader()
    writer.writerows(kept)
    write_text(path, text.getvalue())
