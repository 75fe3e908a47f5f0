"""The tables of a comparison as text, whatever they are printed on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from metakd.comparing.cells import (
    Cells,
    Column,
    Report,
    Table,
    clean,
    cost_cells,
    difference_cells,
    figure_cells,
    marked,
    name_cells,
    seed_cells,
    setting_cells,
    shown,
)
from metakd.comparing.class_splits import class_splits, split_table
from metakd.comparing.columns import settings_of
from metakd.comparing.compare import Comparable, Comparison
from metakd.comparing.gather import Run
from metakd.comparing.layout import table_of, unfinished
from metakd.comparing.naming import common_folder, labels, row_label
from metakd.comparing.pairing import Apart, Row
from metakd.comparing.sentences import sentences, title

__all__ = ["Column", "Report", "Table", "apart_line", "baseline_first", "report", "shown"]


def report(
    comparison: Comparison,
    names: Mapping[Row, str] | None = None,
    verdicts: Sequence[str] | None = None,
) -> Report:
    """Return the tables and sentences of a comparison.

    A table for each set of rows that were evaluated on the same tasks, one of the runs that have no
    figures, and one of the class splits where these differ; then verdicts, how to read it, and
    what cannot be compared.

    Args:
        comparison: all that is known.
        names: of rows; others are named by their folders.
        verdicts: sentences in place of the default ones.
    """
    label = labels(comparison.runs)

    def called(row: Row) -> str:
        return (names or {}).get(row) or row_label(row, label)

    tables = [_main(comparison, comparable, called) for comparable in comparison.comparable]
    if comparison.unfinished:
        known = [
            name
            for name in comparison.settings.values()
            if any(name in settings_of(r, comparison.settings) for r in comparison.unfinished)
        ]
        tables.append(table_of("without results", [*unfinished(comparison, known).values()]))
    tables += split_table(class_splits(comparison.runs), label)
    lines = [*sentences(comparison, called, verdicts)]
    lines += [apart_line(apart, label) for apart in comparison.apart]
    place = common_folder(comparison.runs)
    if place and len(comparison.runs) > 1 and not names:
        lines.append(f"runs are named from {place}")
    return Report(tuple(tables), tuple(clean(line) for line in lines))


def baseline_first(comparison: Comparison, comparable: Comparable) -> list[Row]:
    """Return the rows of a set, best first; the baseline stands before them."""
    return sorted(comparable.rows, key=lambda row: row is not comparison.baseline)


def _main(comparison: Comparison, comparable: Comparable, label: Callable[[Row], str]) -> Table:
    rows = baseline_first(comparison, comparable)
    order = [comparable.rows.index(row) for row in rows]
    cells: list[Cells] = [(Column("run"), lambda _, row: marked(clean(label(row)), row))]
    cells += name_cells(comparison)
    cells += setting_cells(comparison, comparison.settings.values())
    cells += seed_cells(comparison)
    cells += figure_cells(comparison, comparable)
    cells += difference_cells(comparison, comparable)
    cells += cost_cells(comparison, comparable)
    texts = [tuple(text(i, row) for _, text in cells) for i, row in zip(order, rows, strict=True)]
    kept = [
        j for j, (column, _) in enumerate(cells) if not column.numeric or any(t[j] for t in texts)
    ]
    return Table(
        clean(title(comparable)),
        tuple(cells[j][0] for j in kept),
        tuple(tuple(t[j] for j in kept) for t in texts),
    )


def apart_line(apart: Apart, label: Mapping[Run, str]) -> str:
    """Return which runs cannot be compared, and why."""
    names = [label[run] for run in apart.runs]
    words = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
    what = "left out of the difference" if apart.partly else "not comparable"
    return f"{what}: {words}: {apart.reason}"
