"""A user's own table: a row for each example, a column of classes, columns of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from metakd.data.class_examples import PreparedData
from metakd.data.class_split import by_class, hold_out
from metakd.data.features import FeatureData, FeatureReading
from metakd.data.labelled_table import LabelledTable, TableFormat
from metakd.data.own_classes import listed
from metakd.data.table_file import SUFFIXES, TableFile
from metakd.errors import UserError, check_word

__all__ = ["Table"]

_VERSION = 2  # raised whenever the same settings give other examples


class Table(LabelledTable):
    """Rows of numbers from a CSV or .npz file, their classes in a column of it.

    Args:
        data_root: folder of datasets; its ``table.csv`` is read where `folder` is None.
        folder: the file, or the folder of files.
        splits: see `OwnClasses`.
        split_seed: likewise; also decides the held-out fifth of each class.
        columns: columns of features; None: all others that hold numbers.
        missing: `refuse` cells without a value, or fill them with the meta-train `mean`.
        all_test: every class is a meta-test class.
        file: what stands where in it.
    """

    name = "table"
    suffixes = SUFFIXES
    data_class: ClassVar[type[FeatureData]] = FeatureData

    def __init__(
        self,
        data_root: Path,
        *,
        folder: str | None = None,
        splits: str | None = None,
        split_seed: int = 0,
        columns: Sequence[str] | None = None,
        missing: str = "refuse",
        all_test: bool = False,
        file: TableFormat = TableFormat(),
    ) -> None:
        place = Path(folder).expanduser() if folder else data_root / "table.csv"
        super().__init__(place, splits, split_seed, all_test, file)
        self._columns, self._missing = _checked_columns(columns, file.label), missing
        check_word("dataset.options.missing", missing, ("refuse", "mean"))

    def cache_key(self) -> str:
        """See `Dataset.cache_key`."""
        return self._key(_VERSION, self._columns, self._missing)

    def load(self) -> PreparedData:
        """See `Dataset.load`."""
        tables = self._tables()
        columns, notes = self._features(tables[0][1])
        rows = np.concatenate([table.numbers(columns, self._missing) for _, table in tables])
        names_of_rows = [name for _, table in tables for name in self._classes(table)]
        names = sorted(set(names_of_rows))
        class_lists, more = self._class_lists(tables, names)
        number = {name: i for i, name in enumerate(names)}
        labels = torch.tensor([number[name] for name in names_of_rows], dtype=torch.int64)
        tests = self._tests(tables)
        held_out = hold_out(labels, self._seed) if tests is None else torch.tensor(tests)
        prepared = by_class(
            self.name,
            torch.from_numpy(rows),
            labels,
            names,
            class_lists,
            held_out=held_out,
        )
        reading = FeatureReading(columns, self._file.label, self._missing)
        places = [f"{table.path}, line {line}" for _, table in tables for line in table.lines]
        if self.by_examples:
            copies = _learned(rows, held_out.tolist(), places)
        else:
            copies = _repeated(rows, names_of_rows, places)
        notes = [*notes, *more, *copies, *_constant(prepared, columns)]
        said = tuple(f"dataset table: {line}" for line in notes)
        return replace(prepared, reading=reading, notes=said)

    def _features(self, table: TableFile) -> tuple[tuple[str, ...], list[str]]:
        """Return the columns of features, and a line about those that are left out."""
        if self._columns is not None:
            return self._columns, []
        others = [n for n in table.cells if n not in (self._file.label, self._file.split_column)]
        if table.path.suffix.lower() == ".npz":
            others = [name for name in others if name not in ("label", "split")]
        texts = [name for name in others if table.is_text(name)]
        counting = [name for name in others if name not in texts and table.counts_rows(name)]
        columns = tuple(name for name in others if name not in (*texts, *counting))
        notes = []
        if counting:
            # Tables are often sorted by class, and such a number then gives the class away.
            notes.append(
                f"{len(counting)} columns that only count the rows are left out: "
                f"{listed(counting, 5)}; dataset.options.columns names what is to be learned from"
            )
        if texts:
            notes.append(f"{len(texts)} columns without a number are left out: {listed(texts, 5)}")
        if table.unnamed:
            notes.append(f"{table.unnamed} columns without a name are left out")
        if not columns:
            raise UserError(f"the table {table.path} has no column of numbers beside its label")
        return columns, notes


def _checked_columns(columns: Any, label: str) -> tuple[str, ...] | None:
    if columns is None:
        return None
    if isinstance(columns, str) or not isinstance(columns, Sequence) or not columns:
        raise UserError(f"dataset.options.columns={columns}: give a list of names, [a, b], or null")
    named = tuple(str(name) for name in columns)
    if len(set(named)) < len(named):
        raise UserError(f"dataset.options.columns={list(named)}: a column is named twice")
    if label in named:
        raise UserError(f"dataset.options.columns: '{label}' is the column of classes")
    return named


def _repeated(rows: NDArray, names: Sequence[str], places: Sequence[str]) -> list[str]:
    """Return a line about rows of which the same numbers and class stand in the table before."""
    first: dict[tuple[bytes, str], int] = {}
    again = [
        (one, i)
        for i, (row, name) in enumerate(zip(rows, names, strict=True))
        if (one := first.setdefault((row.tobytes(), name), i)) != i
    ]
    if not again:
        return []
    many = f"{len(again)} rows equal" if len(again) > 1 else "1 row equals"
    return [
        f"{many} another of the class ({_pair(again, places)}): a task may show a row and ask "
        "about it; keep one of each if they are copies"
    ]


def _learned(rows: NDArray, held_out: Sequence[bool], places: Sequence[str]) -> list[str]:
    """Return a line about test rows of a whole dataset whose numbers are those of training rows."""
    learned: dict[bytes, int] = {}
    for i, row in enumerate(rows):
        if not held_out[i]:
            learned.setdefault(row.tobytes(), i)
    known = [
        (learned[row.tobytes()], i)
        for i, row in enumerate(rows)
        if held_out[i] and row.tobytes() in learned
    ]
    if not known:
        return []
    many = f"{len(known)} test rows equal" if len(known) > 1 else "1 test row equals"
    return [
        f"{many} a training row ({_pair(known, places)}): figures count what was learned; leave "
        "out one of each if they are copies"
    ]


def _pair(found: Sequence[tuple[int, int]], places: Sequence[str]) -> str:
    """Return where the first two rows stand that are alike."""
    return " and ".join(places[i] for i in found[0])


def _constant(prepared: PreparedData, columns: Sequence[str]) -> list[str]:
    """Return a line about columns that hold one value in all of meta-train."""
    train = prepared.splits["train"]
    rows = train.examples[~train.held_out]
    if not len(rows):
        return []
    same = (rows == rows[0]) | (rows.isnan() & rows[0].isnan())
    names = [name for name, one in zip(columns, same.all(0).tolist(), strict=True) if one]
    said = "columns are constant in meta-train and say nothing"
    return [f"{len(names)} {said}: {listed(names, 5)}"] if names else []
