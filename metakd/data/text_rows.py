"""Texts of files, row by row: made fit to be kept, and put in their classes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from metakd.data.class_examples import PreparedData
from metakd.data.class_split import by_class, hold_out
from metakd.data.table_file import TableFile, decoded
from metakd.data.texts import packed
from metakd.errors import UserError

__all__ = [
    "ENDINGS",
    "LONGEST",
    "TextRow",
    "class_file",
    "cleaned",
    "cut",
    "prepared_texts",
    "rows_of_table",
]

ENDINGS = (".txt", ".text")
"""Of files that hold a text in each line."""
LONGEST = 2000
"""Bytes of a text that are kept unless told otherwise; networks read less."""


class TextRow(NamedTuple):
    """A text and where it stands.

    Attributes:
        text: cleaned.
        label: its class; empty: it has none.
        place: the file and the line, for messages.
    """

    text: str
    label: str
    place: str


def cleaned(text: str, place: str) -> str:
    """Return a text with single blanks between its words, and none around it.

    Args:
        text: as it was given.
        place: where it stands, for the message.

    Raises:
        UserError: nothing is left, or it holds half a character.
    """
    found = " ".join(text.replace("\0", " ").split())
    if not found:
        raise UserError(f"{place}: an empty text: give one, or remove the row")
    try:
        found.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{place}: the text holds half a character ({found[error.start]!a}): correct it"
        ) from error
    return found


def rows_of_table(
    table: TableFile, text: str, labels: Sequence[str], setting: str = "dataset.options.text"
) -> list[TextRow]:
    """Return the texts of a table.

    Args:
        table: that was read.
        text: name of the column of texts.
        labels: the class of each row.
        setting: that names the column, for the message.

    Raises:
        UserError: no such column, or as `cleaned`.
    """
    cells = table.column(text, setting)
    places = [f"{table.path}, line {line}" for line in table.lines]
    return [
        TextRow(cleaned(cell, place), label, place)
        for cell, label, place in zip(cells, labels, places, strict=True)
    ]


def class_file(
    path: Path, text: str, label: str, encoding: str | None = None, *, of_dataset: bool = True
) -> TableFile:
    """Return a file that holds a text of one class in each line, as a table; blank lines are none.

    Args:
        path: of the file; its name without the ending is the class's.
        text: what the column of texts is called.
        label: likewise of classes.
        encoding: see `decoded`.
        of_dataset: see `TableFile`.

    Raises:
        UserError: as `decoded`, or it holds no text.
    """
    lines = decoded(path, encoding, of_dataset=of_dataset).split("\n")
    found = [number for number, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise UserError(f"{path}: it holds no text: put one into each line, or remove the file")
    cells: dict[str, Sequence[str]] = {
        text: [lines[number - 1] for number in found],
        label: [path.stem] * len(found),
    }
    return TableFile(path, cells, found)


def prepared_texts(
    name: str,
    rows: Sequence[TextRow],
    class_lists: Mapping[str, Sequence[str]],
    *,
    seed: int = 0,
    held_out: Sequence[bool] | None = None,
    groups: Mapping[str, str] | None = None,
    paraphrases: Mapping[str, Sequence[str]] | None = None,
    longest: int = LONGEST,
) -> PreparedData:
    """Return texts by split and class, with lines about what was left out.

    A text that stands again in its class is left out, so that no text is in support and query of
    a task.

    Args:
        name: of the dataset.
        rows: the texts with their classes.
        class_lists: class names of each split.
        seed: decides the held-out fifth of each class, where it is not given.
        held_out: of each row, whether it is held out for a target task.
        groups: the superclass of each class; None: one for all.
        paraphrases: of a text, other ways of saying it.
        longest: bytes of a text that are kept.
    """
    first: dict[tuple[str, str], int] = {}
    classes_of: dict[str, list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        if (row.text, row.label) not in first:
            first[row.text, row.label] = i
            classes_of[row.text].append(i)
    kept = list(first.values())
    again = [i for i, row in enumerate(rows) if first[row.text, row.label] != i]
    several = [places for places in classes_of.values() if len(places) > 1]
    long = [i for i in kept if len(rows[i].text.encode()) > longest]
    notes = []
    if again:
        notes.append(
            f"{_count(len(again), 'row says', 'rows say')} what another of the class says, and "
            f"{'is' if len(again) == 1 else 'are'} left out ({rows[again[0]].place})"
        )
    if several:
        one, other = several[0][:2]
        notes.append(
            f"{_count(len(several), 'text stands', 'texts stand')} in more than one class "
            f"({rows[one].place} and {rows[other].place}): leave each in one class"
        )
    if long:
        notes.append(
            f"{_count(len(long), 'text is', 'texts are')} longer than {longest} bytes; the rest of "
            f"{'it' if len(long) == 1 else 'them'} is not read ({rows[long[0]].place})"
        )
    said = paraphrases or {}
    texts = [
        [cut(text, longest) for text in (rows[i].text, *said.get(rows[i].text, ()))] for i in kept
    ]
    names = sorted({rows[i].label for i in kept})
    number = {label: c for c, label in enumerate(names)}
    labels = torch.tensor([number[rows[i].label] for i in kept], dtype=torch.int64)
    of_class = {} if groups is None else groups
    group_names = sorted(set(of_class.values()))
    prepared = by_class(
        name,
        packed(texts),
        labels,
        names,
        class_lists,
        groups=None if groups is None else [group_names.index(of_class[n]) for n in names],
        group_names=group_names,
        held_out=hold_out(labels, seed)
        if held_out is None
        else torch.tensor([held_out[i] for i in kept]),
    )
    return replace(prepared, notes=tuple(f"dataset {name}: {line}" for line in notes))


def cut(text: str, longest: int) -> str:
    """Return the whole characters in the first bytes of a text."""
    content = text.encode()
    return text if len(content) <= longest else content[:longest].decode(errors="ignore").rstrip()


def _count(number: int, one: str, more: str) -> str:
    return f"{number} {one if number == 1 else more}"
