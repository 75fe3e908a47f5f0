"""Texts: those to learn from, by class, and those to name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metakd.data.class_names import class_name
from metakd.data.table_file import TableFile, read_table_file
from metakd.data.text_preprocessing import TextPreprocessing
from metakd.data.text_rows import ENDINGS, class_file, cleaned, rows_of_table
from metakd.errors import UserError
from metakd.using.folders import Asked

__all__ = ["asked_texts", "each_text", "example_texts", "texts_of"]


def texts_of(inputs: Any, wanted: TextPreprocessing) -> Tensor:
    """Return the ids of texts, int32 [n, length].

    Args:
        inputs: a text, or a list (array, column of a data frame) of texts; of such, too, what
            `each_text` has read.
        wanted: how the network reads.

    Raises:
        UserError: one of them is no text, or is empty.
    """
    if (
        not isinstance(inputs, Iterable)
        or isinstance(inputs, Mapping)
        or hasattr(inputs, "columns")
    ):
        raise UserError(
            f"inputs: {type(inputs).__name__} is no list of texts; of a table give its column: "
            f"inputs['{wanted.text}']"
        )
    found = list(each_text([inputs] if isinstance(inputs, str) else list(inputs), wanted))
    for ids in found:
        if isinstance(ids, UserError):
            raise ids
    if not found:
        return torch.empty(0, wanted.length, dtype=torch.int32)
    return torch.stack([ids for ids in found if isinstance(ids, Tensor)])


def each_text(inputs: Sequence[Any], wanted: TextPreprocessing) -> Iterator[Tensor | UserError]:
    """Yield the ids [length] of each text as `texts_of` does, or why it cannot be read."""
    for number, given in enumerate(inputs):
        if isinstance(given, Tensor) and given.dtype == torch.int32:
            yield given
        elif isinstance(given, (str, np.str_)):
            try:
                yield wanted.encode([cleaned(str(given), f"inputs, number {number}")])[0]
            except UserError as problem:
                yield problem
        else:
            yield UserError(f"inputs, number {number}: {type(given).__name__} is no text")


def example_texts(place: Path, wanted: TextPreprocessing) -> dict[str, list[str]]:
    """Return the texts of each class, in the order of the classes' names.

    Args:
        place: a CSV, TSV or JSONL file with columns of texts and classes, or a folder with a file
            for each class, a text in each line.
        wanted: what the columns are called.

    Raises:
        UserError: no such file, a missing column, a row without a class or without a text.
    """
    found: dict[str, list[str]] = {}
    for table in _tables(place, wanted):
        names = table.column(wanted.label, "the column of classes")
        for row, name in zip(_rows(table, wanted), names, strict=True):
            if not name:
                raise UserError(f"{row.place}: no class in column '{wanted.label}'")
            found.setdefault(class_name(name), []).append(row.text)
    return dict(sorted(found.items()))


def asked_texts(paths: Sequence[Path], wanted: TextPreprocessing) -> list[Asked]:
    """Return the texts that are asked about; a column or a folder of classes says the truth.

    Args:
        paths: of what `example_texts` takes, the column of classes not being needed; or .txt files
            with a text in each line.
        wanted: what the columns are called.

    Raises:
        UserError: as `example_texts`.
    """
    asked: list[Asked] = []
    for path in paths:
        for table in _tables(path, wanted):
            known: Sequence[str] = table.cells.get(wanted.label, [""] * len(table))
            if path.suffix.lower() in ENDINGS:
                known = [""] * len(table)  # the name of a single file of texts is no class
            for line, row, name in zip(table.lines, _rows(table, wanted), known, strict=True):
                truth = class_name(name.strip()) or None
                asked.append(Asked(Path(f"{table.path}:{line}"), truth, row.text))
    return asked


def _tables(place: Path, wanted: TextPreprocessing) -> list[TableFile]:
    if place.is_dir():
        paths = [path for path in sorted(place.iterdir()) if path.suffix.lower() in ENDINGS]
        if not paths:
            raise UserError(
                f"{place}: this folder holds no .txt file with the texts of a class: put some "
                "there, or name a table (CSV, TSV, JSONL)"
            )
    elif place.exists():
        paths = [place]
    else:
        raise UserError(f"{place}: there is no such file or folder of texts")
    return [
        class_file(path, wanted.text, wanted.label, of_dataset=False)
        if path.suffix.lower() in ENDINGS
        else read_table_file(path, of_dataset=False)
        for path in paths
    ]


def _rows(table: TableFile, wanted: TextPreprocessing) -> list[Any]:
    return rows_of_table(table, wanted.text, [""] * len(table), "the column of texts")
