"""Tables that fit a terminal: cells are wrapped, and a table that is too wide becomes several."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from metakd.comparing.cells import Column, Table, clean, number, value_of
from metakd.comparing.compare import Comparison
from metakd.comparing.naming import labels

__all__ = ["Filled", "laid_out", "table_of", "table_width", "unfinished", "wrapped"]

NAME_WIDTH = 28
"""Width of names and other text, if a table does not fit otherwise."""


@dataclass(frozen=True)
class Filled:
    """A column with its texts, one for each row."""

    column: Column
    texts: tuple[str, ...]

    @property
    def width(self) -> int:
        """Return the characters of its longest line."""
        return max(len(line) for t in (self.column.header, *self.texts) for line in t.split("\n"))

    def narrowed(self, most: int) -> Filled:
        """Return the column with its words, not its numbers, wrapped to lines of `most`."""
        if self.column.numeric or self.width <= most:
            return self
        header = wrapped(self.column.header, most)
        return Filled(Column(header), tuple(wrapped(text, most) for text in self.texts))


def table_width(columns: Sequence[Filled]) -> int:
    """Return the characters of a table's line, with two between columns and one at each end."""
    return sum(column.width for column in columns) + 2 * len(columns)


def wrapped(text: str, width: int) -> str:
    """Return text in lines of at most `width`, broken behind a space, a comma, a dot or a slash."""
    lines = [""]
    for word in re.findall(r"[^ ,/.]*[ ,/.]*", text):
        while len(lines[-1] + word.rstrip()) > width and word:
            if lines[-1]:
                lines.append("")
            else:  # a word that is longer than a line
                lines[-1], word = word[:width], word[width:]
                lines.append("")
        lines[-1] += word
    return "\n".join(line.rstrip() for line in lines if line)


def laid_out(
    title: str, above: str, name: Filled, blocks: Sequence[Sequence[Filled]], width: int
) -> list[Table]:
    """Return one table if it fits, else several; each has the rows' names.

    Args:
        title: of the first one.
        above: what is said above it.
        name: of the rows.
        blocks: columns that belong together, in order; a block that fits is not split.
        width: characters of a line.
    """
    for head in (lambda column: column, _two_lines):
        blocks = [[head(column) for column in block] for block in blocks if block]
        every = [column for block in blocks for column in block]
        if table_width([name, *every]) <= width:
            return [table_of(title, [name, *every], above)]
    name = name.narrowed(min(NAME_WIDTH, max(12, width // 3)))
    blocks = [[c.narrowed(min(NAME_WIDTH, max(8, width // 3))) for c in block] for block in blocks]
    parts: list[list[Filled]] = [[name]]
    for block in blocks:
        if table_width([*parts[-1], *block]) > width and len(parts[-1]) > 1:
            parts.append([name])
        for column in block:
            if table_width([*parts[-1], column]) > width and len(parts[-1]) > 1:
                parts.append([name])
            parts[-1].append(column)
    return [
        table_of(title if i == 0 else "", _in_one_line(part, width), above if i == 0 else "")
        for i, part in enumerate(parts)
    ]


def _in_one_line(columns: Sequence[Filled], width: int) -> Sequence[Filled]:
    """Return columns with headers of one line if they fit so, too."""
    plain = [Filled(_one_line(column.column), column.texts) for column in columns]
    return plain if table_width(plain) <= width else columns


def _one_line(column: Column) -> Column:
    words = column.header.split("\n")
    # What was broken behind a dot is one word.
    header = "".join(f"{w}" if w.endswith(".") else f"{w} " for w in words).rstrip()
    return Column(header, column.numeric)


def table_of(title: str, columns: Sequence[Filled], above: str = "") -> Table:
    """Return columns as a table."""
    rows = zip(*(column.texts for column in columns), strict=True)
    return Table(title, tuple(column.column for column in columns), tuple(rows), above)


def _two_lines(filled: Filled) -> Filled:
    """Return a column whose header takes two lines, if that is wider than what stands below."""
    header = filled.column.header
    widest = max((len(text) for text in filled.texts), default=0)
    cut = max(header.rfind(" "), header.rfind("."))
    if len(header) <= widest or cut < 0:
        return filled
    first, second = header[: cut + 1].rstrip(), header[cut + 1 :]
    return Filled(Column(f"{first}\n{second}", filled.column.numeric), filled.texts)


def unfinished(comparison: Comparison, names: Sequence[str]) -> dict[str, Filled]:
    """Return the columns of runs without results by their headers, `names` of settings among them.

    They are `run`, the settings, `seed`, `status`, `stage` and `why`.
    """
    runs, label = comparison.unfinished, labels(comparison.runs)
    texts = {"run": [clean(label[run]) for run in runs]}
    texts |= {name: [value_of(run, name, comparison) for run in runs] for name in names}
    texts["seed"] = [number(run.seed) for run in runs]
    texts["status"] = [run.status for run in runs]
    texts["stage"] = [clean(run.info.stage or "") for run in runs]
    texts["why"] = [clean(run.reason or "") for run in runs]
    return {
        header: Filled(Column(clean(header), header == "seed"), tuple(column))
        for header, column in texts.items()
    }
