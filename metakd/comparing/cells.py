"""The cells of a comparison's tables, as text."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from metakd.comparing.columns import is_off
from metakd.comparing.compare import Comparable, Comparison
from metakd.comparing.figures import COSTS, Figure, cost_of, diverged_of, figure_of
from metakd.comparing.gather import Run
from metakd.comparing.pairing import Row, RowPair
from metakd.comparing.sentences import probability
from metakd.reports.doubts import MARK, WARNED
from metakd.reports.summary import MODELS
from metakd.runs.records import shots_word
from metakd.runs.records_compare import CostName

__all__ = [
    "Cells",
    "Column",
    "Report",
    "Table",
    "clean",
    "cost_cells",
    "difference_cells",
    "difference_text",
    "figure_cells",
    "marked",
    "name_cells",
    "number",
    "probability_text",
    "seed_cells",
    "setting_cells",
    "shown",
    "value_of",
]


@dataclass(frozen=True)
class Column:
    """A column: its header, and whether it holds numbers (set flush right)."""

    header: str
    numeric: bool = False


@dataclass(frozen=True)
class Table:
    """A title, columns, and a cell of text for each row and column.

    Attributes:
        title: of the table.
        columns: from left to right.
        rows: from top to bottom.
        above: what all rows have in common, printed above them.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    above: str = ""


@dataclass(frozen=True)
class Report:
    """A report: tables, then lines."""

    tables: tuple[Table, ...]
    lines: tuple[str, ...]


Cells = tuple[Column, Callable[[int, Row], str]]
"""A column, and a function from a row's rank in its set and the row to its text."""


def shown(value: Any) -> str:
    """Return a setting's value as text."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return "[" + ",".join(shown(v) for v in value) + "]"
    return clean(str(value))


def clean(text: str) -> str:
    """Return text without control characters: names come from files."""
    return "".join(c if c.isprintable() else "�" for c in " ".join(text.split()))


def setting_cells(comparison: Comparison, names: Iterable[str]) -> list[Cells]:
    """Return a column for each setting of `names`."""

    def column(name: str) -> Cells:
        return Column(clean(name)), lambda _, row: value_of(row[0], name, comparison)

    return [column(name) for name in names]


def value_of(run: Run, name: str, comparison: Comparison) -> str:
    """Return a setting as text; a dash where the run has no such setting, or does not use it."""
    key = next(key for key, called in comparison.settings.items() if called == name)
    known = key in run.settings and not is_off(run.settings, key)
    return shown(run.settings[key]) if known else "–"


def name_cells(comparison: Comparison) -> list[Cells]:
    """Return the column of names, unless there is only one name or they repeat settings."""
    runs = comparison.runs
    usual = all(
        run.name == f"{run.settings.get('dataset.name')}_{run.settings.get('algorithm.name')}"
        or run.name == run.path.name
        for run in runs
    )
    if usual or len({run.name for run in runs}) == 1:
        return []
    return [(Column("name"), lambda _, row: clean(row[0].name))]


def marked(name: str, row: Row) -> str:
    """Return a row's name in a table; with a mark if any of its runs recorded warnings."""
    return f"{name} {WARNED}" if any(run.warnings for run in row) else name


def seed_cells(comparison: Comparison) -> list[Cells]:
    """Return the column of seeds: their number if any row has several, else the seed."""
    rows = [row for comparable in comparison.comparable for row in comparable.rows]
    if any(len(row) > 1 for row in rows):
        return [(Column("seeds", numeric=True), lambda _, row: str(len(row)))]
    if len({row[0].seed for row in rows}) > 1:
        return [(Column("seed", numeric=True), lambda _, row: number(row[0].seed))]
    return []


def number(value: int | None) -> str:
    """Return a number as text; nothing for None."""
    return "" if value is None else str(value)


def figure_cells(comparison: Comparison, comparable: Comparable) -> list[Cells]:
    """Return a column for each model and number of shots, that which is compared first."""
    found: list[Cells] = []
    for model in dict.fromkeys([comparison.model, *MODELS]):
        for k in comparable.shots:

            def text(_: int, row: Row, model: str = model, k: int = k) -> str:
                figure = figure_of(row, model, k)
                if diverged_of(row, model, k):
                    return f"{'diverged' if figure is None else _figure(figure)} {MARK}"
                return "" if figure is None else _figure(figure)

            found.append((Column(f"{MODELS[model]} {shots_word(k)}", numeric=True), text))
    return found


def _figure(figure: Figure) -> str:
    scale, digits = (100.0, 2) if figure.measure == "accuracy" else (1.0, 4)
    text = f"{scale * figure.mean:.{digits}f}"
    return text if figure.half is None else f"{text} ± {scale * figure.half:.{digits}f}"


def difference_cells(comparison: Comparison, comparable: Comparable) -> list[Cells]:
    """Return for each number of shots the difference to the baseline and p; none without one."""
    base = comparison.baseline
    if base is None or base not in comparable.rows:
        return []
    found: list[Cells] = []
    for k in comparable.shots:

        def difference(_: int, row: Row, k: int = k) -> str:
            if row is base:
                return "baseline"
            pair = comparison.pair(row, base, k)
            if pair is None:
                return ""
            return difference_text(pair, pair.difference)

        def p(_: int, row: Row, k: int = k) -> str:
            pair = comparison.pair(row, base, k)
            return "" if pair is None else probability_text(pair)

        several = f" {shots_word(k)}" if len(comparable.shots) > 1 else ""
        found.append((Column(f"difference{several}", numeric=True), difference))
        found.append((Column(f"p{several}", numeric=True), p))
    return found


def difference_text(pair: RowPair, difference: float) -> str:
    """Return a difference with its interval, in points of accuracy."""
    scale, digits = (100.0, 2) if pair.pairs[0].measure == "accuracy" else (1.0, 4)
    return f"{scale * difference:+.{digits}f} ± {scale * pair.corrected_half:.{digits}f}"


def probability_text(pair: RowPair) -> str:
    """Return a corrected p: ``0.013``, ``< 0.0001``."""
    return probability(pair.p_adjusted).removeprefix("p ").lstrip("= ")


def cost_cells(comparison: Comparison, comparable: Comparable) -> list[Cells]:
    """Return a column for each cost, with a star for rows on its front."""
    found: list[Cells] = []
    for key, header in COSTS.items():

        def text(i: int, row: Row, key: CostName = key) -> str:
            cost = cost_of(row, comparison.model, key)
            if cost is None:
                return ""
            words = f"{cost:.3f}" if key.endswith("latency_ms") else f"{cost:,.0f}"
            on_front = key in comparable.fronts and comparable.fronts[key][i]
            return words + ("*" if on_front else "")

        found.append((Column(header, numeric=True), text))
    return found
