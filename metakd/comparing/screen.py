"""A comparison for a terminal: rows named by what differs, common values printed once."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from metakd.comparing.cells import (
    Cells,
    Column,
    Report,
    Table,
    clean,
    cost_cells,
    difference_cells,
    difference_text,
    figure_cells,
    marked,
    name_cells,
    probability_text,
    seed_cells,
    setting_cells,
    value_of,
)
from metakd.comparing.class_splits import class_splits, split_line
from metakd.comparing.compare import Comparable, Comparison
from metakd.comparing.layout import Filled, laid_out, table_of, table_width, unfinished
from metakd.comparing.naming import (
    MISSING,
    common_folder,
    labels,
    row_label,
    row_names,
    varying,
)
from metakd.comparing.pairing import Row, RowPair
from metakd.comparing.sentences import sentences, title
from metakd.comparing.tables import apart_line, baseline_first

__all__ = ["screen_report"]

FEW = 5
"""Most rows for which every pair is printed, without a baseline."""

CHOICES = ("algorithm", "distill", "student", "teacher")
"""Shown for all rows, also if all runs have the same."""

MOST_COMMON = 12
"""Most settings and figures that are printed above a table."""


def screen_report(
    comparison: Comparison,
    width: int,
    names: Mapping[Row, str] | None = None,
    verdicts: Sequence[str] | None = None,
    implied: Collection[str] = (),
) -> Report:
    """Return the tables and sentences of a comparison for a terminal.

    Common values of a table are printed above it; rows are named by the settings in which they
    differ; a table that is too wide becomes two: settings, accuracy and differences,
    then the other models and cost.
    With few rows and no baseline there is a table of all pairs.

    Args:
        comparison: all that is known.
        width: characters of a line.
        names: what rows are called; those that are not in it by what differs.
        verdicts: sentences in place of the default ones.
        implied: settings that `names` says.
    """
    called: dict[Row, str] = {}
    tables: list[Table] = []
    for comparable in comparison.comparable:
        found, used = _names(comparison, comparable)
        given = {row: name for row, name in (names or {}).items() if row in found}
        called |= {**found, **given}
        said = {*implied} if given else {*used}
        tables += _main(comparison, comparable, called, said, width)
        if comparison.baseline is None and verdicts is None:
            tables += _pairs(comparison, comparable, called, width)
    tables += _unfinished(comparison, width) if comparison.unfinished else []
    label = labels(comparison.runs)
    starred = any("*" in cell for table in tables for row in table.rows for cell in row)
    lines = [
        line
        for line in sentences(comparison, lambda row: called[row], verdicts)
        if starred or not line.startswith("*: ")
    ]
    lines += [apart_line(apart, label) for apart in comparison.apart]
    lines += split_line(class_splits(comparison.runs))
    if any(c.header == "folder" for table in tables for c in table.columns):
        place = common_folder(comparison.runs)
        lines += [f"folders are below {place}"] if place else []
    return Report(tuple(tables), tuple(clean(line) for line in lines))


def _names(comparison: Comparison, comparable: Comparable) -> tuple[dict[Row, str], list[str]]:
    """Return names of a set's rows; a single one is named by what differs from other sets."""
    if len(comparable.rows) > 1:
        return row_names(comparable.rows, comparison)
    every = [row for one in comparison.comparable for row in one.rows]
    names, used = row_names(every, comparison)
    return {row: names[row] for row in comparable.rows}, used


def _main(
    comparison: Comparison,
    comparable: Comparable,
    called: Mapping[Row, str],
    said: Collection[str],
    width: int,
) -> list[Table]:
    rows = baseline_first(comparison, comparable)
    differ = varying(rows, comparison)
    rest = [name for name in differ if name not in said]
    first = [*setting_cells(comparison, rest)]
    if "name" not in said and len({row[0].name for row in rows}) > 1:
        first += name_cells(comparison)
    seeds = [] if "seed" in said else seed_cells(comparison)
    blocks: list[list[Filled]] = []
    common = [*_common_settings(rows, comparison, said)]
    figures = figure_cells(comparison, comparable)
    compared = len(comparable.shots)
    for cells in (
        [*first, *seeds],
        figures[:compared],
        difference_cells(comparison, comparable),
        figures[compared:],
        cost_cells(comparison, comparable),
    ):
        filled = _filled(cells, rows, comparable)
        kept = [column for column in filled if not _is_same(column)]
        common += [_same(column, rows) for column in filled if column not in kept]
        blocks.append(kept)
    blocks[-1].append(_folders(rows, comparison))
    if len(common) > MOST_COMMON:
        common[MOST_COMMON:] = [f"and {len(common) - MOST_COMMON} more"]
    above = f"{'all' if len(rows) > 1 else 'with'}: {', '.join(common)}" if common else ""
    name = Filled(Column("run"), tuple(marked(called[row], row) for row in rows))
    return laid_out(clean(title(comparable)), above, name, blocks, width)


def _filled(cells: Sequence[Cells], rows: Sequence[Row], comparable: Comparable) -> list[Filled]:
    """Return columns with their texts, without those of numbers that nobody has."""
    rank = {row: i for i, row in enumerate(comparable.rows)}
    found = [Filled(column, tuple(text(rank[row], row) for row in rows)) for column, text in cells]
    return [f for f in found if not f.column.numeric or any(f.texts)]


def _is_same(filled: Filled) -> bool:
    """Tell whether all of several rows have the same text, ignoring stars."""
    return len(filled.texts) > 1 and len({text.rstrip("*") for text in filled.texts}) == 1


def _same(filled: Filled, rows: Sequence[Row]) -> str:
    header, text = filled.column.header, filled.texts[0].rstrip("*")
    if header == "seeds":
        seeds = {tuple(run.seed for run in row) for row in rows}
        if len(seeds) > 1 or None in next(iter(seeds)):
            return f"{text} seeds"
        return f"seeds {', '.join(map(str, seeds.pop()))}"
    return f"{header} {text}"


def _common_settings(
    rows: Sequence[Row], comparison: Comparison, said: Collection[str]
) -> Iterator[str]:
    """Yield what rows have in common: choices, and settings in which they differ from others."""
    settings = dict.fromkeys([*CHOICES, *comparison.settings.values()])
    evaluated = any("teacher" in run.headlines for row in rows for run in row)
    for name in settings:
        if name in said or (name == "teacher" and not evaluated):
            continue
        if name in comparison.settings.values():
            values = {value_of(row[0], name, comparison) for row in rows}
        else:
            values = {str(row[0].settings.get(f"{name}.name", MISSING)) for row in rows}
        value = values.pop()
        if not values and value != MISSING:
            yield f"{name}={clean(value)}"


def _folders(rows: Sequence[Row], comparison: Comparison) -> Filled:
    label = labels(comparison.runs)

    def text(row: Row) -> str:
        every = ", ".join(label[run] for run in row)
        return clean(every if len(every) <= 16 else row_label(row, label))

    return Filled(Column("folder"), tuple(text(row) for row in rows))


# --- pairs


def _pairs(
    comparison: Comparison, comparable: Comparable, called: Mapping[Row, str], width: int
) -> list[Table]:
    """Return the table of all pairs of a set's rows, if these are 3 to 5; a pair is a sentence."""
    rows = comparable.rows
    if not 2 < len(rows) <= FEW:
        return []
    found = [pair for pair in comparison.pairs if pair.row in rows and pair.baseline in rows]
    if not found:
        return []
    # The better one first, as in the sentences.
    ordered = [(p.row, p.baseline) if p.better >= 0 else (p.baseline, p.row) for p in found]
    sizes = [p.difference if p.better >= 0 else -p.difference for p in found]
    columns = [
        Filled(Column("run"), tuple(called[first] for first, _ in ordered)),
        Filled(Column("against"), tuple(called[second] for _, second in ordered)),
    ]
    if len(comparable.shots) > 1:
        shots = tuple(str(pair.pairs[0].shots) for pair in found)
        columns.append(Filled(Column("shots", numeric=True), shots))
    columns += [
        Filled(Column("over", numeric=True), tuple(_over(pair) for pair in found)),
        Filled(
            Column("difference", numeric=True),
            tuple(difference_text(p, size) for p, size in zip(found, sizes, strict=True)),
        ),
        Filled(Column("p", numeric=True), tuple(probability_text(pair) for pair in found)),
    ]
    room = width - table_width(columns[2:]) - 4
    if room < columns[0].width + columns[1].width:
        columns[:2] = [column.narrowed(max(12, room // 2)) for column in columns[:2]]
    unit = " (points)" if found[0].pairs[0].measure == "accuracy" else ""
    many = len(comparison.pairs)
    corrected = f"; ± and p corrected for {many} comparisons" if many > 1 else ""
    heading = f"differences on the same tasks{unit}{corrected}"
    return [table_of(heading, columns)]


def _over(pair: RowPair) -> str:
    return f"{len(pair.pairs)} seeds" if pair.is_over_seeds else f"{pair.pairs[0].tasks} tasks"


# --- runs without figures


def _unfinished(comparison: Comparison, width: int) -> list[Table]:
    """Return the runs without results; their reasons are wrapped into what width is left."""
    settings = varying([(run,) for run in comparison.unfinished], comparison)
    found = unfinished(comparison, settings)
    seed, status, stage, why = (found[name] for name in ("seed", "status", "stage", "why"))
    ends = [*([seed] if any(seed.texts) else []), status, *([stage] if any(stage.texts) else [])]
    about = [found[name] for name in settings]
    columns = [found["run"].narrowed(max(12, width // 3))]
    if table_width([*columns, *about, *ends, why]) <= width:
        columns += about
    columns += ends
    columns.append(why.narrowed(max(24, width - table_width(columns) - 2)))
    return [table_of("without results", columns)]
