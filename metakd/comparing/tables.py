"""The tables of a comparison as text, whatever they are printed on."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metakd.comparing.columns import is_off, settings_of
from metakd.comparing.compare import Comparable, Comparison
from metakd.comparing.figures import Figure, cost_of, diverged_of, figure_of
from metakd.comparing.front import COSTS
from metakd.comparing.gather import Run
from metakd.comparing.pairing import Apart, Row
from metakd.comparing.sentences import probability, sentences, title
from metakd.reports.doubts import MARK
from metakd.reports.summary import MODELS

__all__ = ["Column", "Report", "Table", "report", "shown"]


@dataclass(frozen=True)
class Column:
    """A column: its header, and whether it holds numbers (set flush right)."""

    header: str
    numeric: bool = False


@dataclass(frozen=True)
class Table:
    """A title, columns, and a cell of text for each row and column."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Report:
    """What a person reads: tables, then lines."""

    tables: tuple[Table, ...]
    lines: tuple[str, ...]


def report(
    comparison: Comparison,
    names: Mapping[Row, str] | None = None,
    verdicts: Sequence[str] | None = None,
) -> Report:
    """Return the tables and sentences of a comparison.

    A table for each set of rows that were judged on the same tasks, and one of the runs that have
    no figures; then who is better, how to read it, and what cannot be compared.

    Args:
        comparison: all that is known.
        names: what rows are called; those that are not in it are called by their folders.
        verdicts: what to say in place of who is better.
    """
    label = _labels(comparison.runs)

    def called(row: Row) -> str:
        return (names or {}).get(row) or _row_label(row, label)

    tables = [_main(comparison, comparable, called) for comparable in comparison.comparable]
    if comparison.unfinished:
        tables.append(_unfinished(comparison, label))
    lines = [*sentences(comparison, called, verdicts)]
    lines += [_apart(apart, label) for apart in comparison.apart]
    place = _common(comparison.runs)
    if place and len(comparison.runs) > 1 and not names:
        lines.append(f"runs are named from {place}")
    return Report(tuple(tables), tuple(_clean(line) for line in lines))


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
    return _clean(str(value))


def _clean(text: str) -> str:
    """Return text without what moves a terminal's cursor: names come from files."""
    return "".join(c if c.isprintable() else "�" for c in " ".join(text.split()))


# --- how runs are called


def _common(runs: Sequence[Run]) -> str:
    try:
        return os.path.commonpath([run.path.parent for run in runs])
    except ValueError:  # on different drives
        return ""


def _labels(runs: Sequence[Run]) -> Mapping[Run, str]:
    place = _common(runs)
    return {r: os.path.relpath(r.path, place) if place else str(r.path) for r in runs}


def _row_label(row: Row, label: Mapping[Run, str]) -> str:
    return label[row[0]] + (f" +{len(row) - 1}" if len(row) > 1 else "")


# --- rows with figures

Cells = tuple[Column, Callable[[int, Row], str]]


def _main(comparison: Comparison, comparable: Comparable, label: Callable[[Row], str]) -> Table:
    rows = list(comparable.rows)
    base = comparison.baseline
    if base is not None and base in rows:  # it stands first
        rows.sort(key=lambda row: row is not base)
    order = [comparable.rows.index(row) for row in rows]
    cells: list[Cells] = [(Column("run"), lambda _, row: _clean(label(row)))]
    cells += _named(comparison)
    for name in comparison.settings.values():
        cells.append((Column(_clean(name)), _setting(comparison, name)))
    cells += _seeds(comparison)
    cells += _figures(comparison, comparable)
    cells += _differences(comparison, comparable)
    cells += _costs(comparison, comparable)
    texts = [tuple(text(i, row) for _, text in cells) for i, row in zip(order, rows, strict=True)]
    kept = [
        j for j, (column, _) in enumerate(cells) if not column.numeric or any(t[j] for t in texts)
    ]
    return Table(
        _clean(title(comparable)),
        tuple(cells[j][0] for j in kept),
        tuple(tuple(t[j] for j in kept) for t in texts),
    )


def _setting(comparison: Comparison, name: str) -> Callable[[int, Row], str]:
    return lambda _, row: _value(row[0], name, comparison)


def _value(run: Run, name: str, comparison: Comparison) -> str:
    """Return a setting as text; a dash where the run has no such setting, or does not use it."""
    key = next(key for key, called in comparison.settings.items() if called == name)
    known = key in run.settings and not is_off(run.settings, key)
    return shown(run.settings[key]) if known else "–"


def _named(comparison: Comparison) -> list[Cells]:
    """Return the column of names, unless there is one name or they say what settings say."""
    runs = comparison.runs
    usual = all(
        run.name == f"{run.settings.get('dataset.name')}_{run.settings.get('algorithm.name')}"
        or run.name == run.path.name
        for run in runs
    )
    if usual or len({run.name for run in runs}) == 1:
        return []
    return [(Column("name"), lambda _, row: _clean(row[0].name))]


def _seeds(comparison: Comparison) -> list[Cells]:
    rows = [row for comparable in comparison.comparable for row in comparable.rows]
    if any(len(row) > 1 for row in rows):
        return [(Column("seeds", numeric=True), lambda _, row: str(len(row)))]
    if len({row[0].seed for row in rows}) > 1:
        return [(Column("seed", numeric=True), lambda _, row: _number(row[0].seed))]
    return []


def _number(value: int | None) -> str:
    return "" if value is None else str(value)


def _figures(comparison: Comparison, comparable: Comparable) -> list[Cells]:
    found: list[Cells] = []
    for model in dict.fromkeys([comparison.model, *MODELS]):
        for k in comparable.shots:

            def text(_: int, row: Row, model: str = model, k: int = k) -> str:
                figure = figure_of(row, model, k)
                if diverged_of(row, model, k):
                    return f"{'diverged' if figure is None else _figure(figure)} {MARK}"
                return "" if figure is None else _figure(figure)

            found.append((Column(f"{MODELS[model]} {k}-shot", numeric=True), text))
    return found


def _figure(figure: Figure) -> str:
    scale, digits = (100.0, 2) if figure.measure == "accuracy" else (1.0, 4)
    text = f"{scale * figure.mean:.{digits}f}"
    return text if figure.half is None else f"{text} ± {scale * figure.half:.{digits}f}"


def _differences(comparison: Comparison, comparable: Comparable) -> list[Cells]:
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
            scale, digits = (100.0, 2) if pair.pairs[0].measure == "accuracy" else (1.0, 4)
            return (
                f"{scale * pair.difference:+.{digits}f} ± {scale * pair.corrected_half:.{digits}f}"
            )

        def p(_: int, row: Row, k: int = k) -> str:
            pair = comparison.pair(row, base, k)
            return (
                "" if pair is None else probability(pair.p_adjusted).removeprefix("p ").lstrip("= ")
            )

        several = f" {k}-shot" if len(comparable.shots) > 1 else ""
        found.append((Column(f"difference{several}", numeric=True), difference))
        found.append((Column(f"p{several}", numeric=True), p))
    return found


HEADERS = {"parameters": "parameters", "macs": "multiply-adds", "latency_ms": "latency (ms)"}


def _costs(comparison: Comparison, comparable: Comparable) -> list[Cells]:
    found: list[Cells] = []
    for key in COSTS:

        def text(i: int, row: Row, key: str = key) -> str:
            cost = cost_of(row, comparison.model, key)
            if cost is None:
                return ""
            words = f"{cost:.3f}" if key == "latency_ms" else f"{cost:,.0f}"
            on_front = key in comparable.fronts and comparable.fronts[key][i]
            return words + ("*" if on_front else "")

        found.append((Column(HEADERS[key], numeric=True), text))
    return found


# --- runs without figures


def _unfinished(comparison: Comparison, label: Mapping[Run, str]) -> Table:
    runs = comparison.unfinished
    names = [
        n
        for n in comparison.settings.values()
        if any(n in settings_of(run, comparison.settings) for run in runs)
    ]
    columns = [Column("run"), *(Column(_clean(n)) for n in names), Column("seed", numeric=True)]
    columns += [Column("status"), Column("stage"), Column("why")]
    rows = []
    for run in runs:
        stage = run.info.get("stage")
        rows.append(
            (
                _clean(label[run]),
                *(_value(run, n, comparison) for n in names),
                _number(run.seed),
                run.status,
                _clean(str(stage)) if stage else "",
                _clean(run.reason or ""),
            )
        )
    return Table("without results", tuple(columns), tuple(rows))


def _apart(apart: Apart, label: Mapping[Run, str]) -> str:
    names = [label[run] for run in apart.runs]
    words = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
    what = "left out of the difference" if apart.partly else "not comparable"
    return f"{what}: {words}: {apart.reason}"
