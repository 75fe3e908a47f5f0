"""A user's own table: a row for each example, a column of classes, columns of numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from metakd.data.class_examples import PreparedData
from metakd.data.class_folders import SPLIT_FOLDERS
from metakd.data.class_names import class_name
from metakd.data.class_split import (
    by_class,
    check_classes,
    hold_out,
    matched_classes,
    random_split,
    read_class_lists,
)
from metakd.data.features import FeatureData, FeatureReading
from metakd.data.splits import SPLITS
from metakd.data.table_file import SUFFIXES, TableFile, read_table_file
from metakd.errors import UserError, nearest

__all__ = ["Table"]

_VERSION = 1  # raised whenever the same settings give other examples
_CALLED = {word: split for split, words in SPLIT_FOLDERS.items() for word in words}


class Table:
    """Rows of numbers from a CSV or .npz file, their classes in a column of it.

    The classes are dealt out to meta-train, meta-validation and meta-test as 60 / 20 / 20 % by
    `split_seed`, by the lists in the file `splits` or by a column of the table; or `folder` is a
    folder with a file for each split (``train.csv``, ``val.csv``, ``test.csv``). No class is in
    two splits.

    Args:
        data_root: folder of datasets; its ``table.csv`` is read where `folder` is None.
        folder: the file, or the folder of files.
        splits: JSON file with lists of class names under ``train``, ``val`` and ``test``.
        split_seed: decides the split without lists, and the held-out fifth of each class.
        label: column of classes.
        columns: columns of features; None: all others that hold numbers.
        split_column: column that says ``train``, ``val`` or ``test`` of each row.
        missing: `refuse` cells without a value, or fill them with the meta-train `mean`.
        delimiter: between the cells of a CSV file; None: told by its first line.
        all_test: every class is a meta-test class.

    Attributes:
        recorded_split: class names of each split as a run recorded them, set after construction.
        may_lack: splits of `recorded_split` whose classes may be missing, set likewise.
    """

    kind = "classification"
    data_class: ClassVar[type[FeatureData]] = FeatureData

    def __init__(
        self,
        data_root: Path,
        *,
        folder: str | None = None,
        splits: str | None = None,
        split_seed: int = 0,
        label: str = "label",
        columns: Sequence[str] | None = None,
        split_column: str | None = None,
        missing: str = "refuse",
        delimiter: str | None = None,
        all_test: bool = False,
    ) -> None:
        self._path = Path(folder).expanduser() if folder else data_root / "table.csv"
        self._splits = Path(splits).expanduser() if splits else None
        self._seed, self._label, self._split_column = split_seed, str(label), split_column
        self._columns = _checked_columns(columns, self._label)
        self._missing, self._delimiter, self._all_test = missing, delimiter, all_test
        self.recorded_split: dict[str, list[str]] | None = None
        self.may_lack: tuple[str, ...] = ()
        option = "dataset.options"
        if missing not in ("refuse", "mean"):
            raise UserError(
                f"{option}.missing={missing}: choose from refuse, mean."
                + nearest(str(missing), ("refuse", "mean"))
            )
        if delimiter is not None and (not isinstance(delimiter, str) or len(delimiter) != 1):
            raise UserError(f"{option}.delimiter={delimiter}: give one character, or null")
        if not isinstance(all_test, bool):
            raise UserError(f"{option}.all_test={all_test}: type true or false")
        ways = {"dataset.splits": splits, f"{option}.split_column": split_column}
        given = [name for name, value in (*ways.items(), (f"{option}.all_test", all_test)) if value]
        if len(given) > 1:
            raise UserError(f"{given[0]} and {given[1]} both say the class split: keep one")

    def cache_key(self) -> str:
        """See `Dataset.cache_key`."""
        settings = [self._seed, self._label, self._columns, self._split_column, self._missing]
        more = [self._delimiter, self._all_test, self.recorded_split, self.may_lack]
        files = {split: path.name for split, path in self._files().items()}
        lists = None if self._splits is None else read_class_lists(self._splits)
        return json.dumps(["table", _VERSION, settings, more, files, lists])

    def sources(self) -> list[Path]:
        """See `Dataset.cache_key`."""
        return list(self._files().values())

    def load(self) -> PreparedData:
        """See `Dataset.load`."""
        tables = {s: read_table_file(path, self._delimiter) for s, path in self._files().items()}
        first = next(iter(tables.values()))
        columns, notes = self._features(first)
        rows = [table.numbers(columns, self._missing) for table in tables.values()]
        names_of_rows = [name for table in tables.values() for name in self._classes(table)]
        names = sorted(set(names_of_rows))
        class_lists, more = self._there(self._dealt(tables, names), names)
        number = {name: i for i, name in enumerate(names)}
        labels = torch.tensor([number[name] for name in names_of_rows], dtype=torch.int64)
        prepared = by_class(
            "table",
            torch.from_numpy(np.concatenate(rows)),
            labels,
            names,
            class_lists,
            held_out=hold_out(labels, self._seed),
        )
        reading = FeatureReading(columns, self._label, self._missing)
        notes = [*notes, *more, *_constant(prepared, columns)]
        said = tuple(f"dataset table: {line}" for line in notes)
        return replace(prepared, reading=reading, notes=said)

    def _files(self) -> dict[str, Path]:
        """Return the files by split; one alone is under ''."""
        if not self._path.exists():
            raise UserError(f"the table {self._path} is not there: set dataset.folder=FILE.csv")
        if not self._path.is_dir():
            return {"": self._path}
        found: dict[str, Path] = {}
        for path in sorted(self._path.iterdir()):
            split = _CALLED.get(path.stem.lower())
            if split is None or path.suffix.lower() not in SUFFIXES:
                continue
            if split in found:
                raise UserError(f"{found[split]} and {path} are both of the split '{split}'")
            found[split] = path
        if not found:
            raise UserError(
                f"the folder {self._path} holds no train.csv, val.csv or test.csv (or .npz): "
                "name a file (dataset.folder=FILE.csv)"
            )
        if self._splits is not None or self._split_column is not None:
            raise UserError(
                f"the folder {self._path} holds a file for each split already: leave out "
                "dataset.splits and dataset.options.split_column, or name one file"
            )
        return {split: found[split] for split in SPLITS if split in found}

    def _features(self, table: TableFile) -> tuple[tuple[str, ...], list[str]]:
        """Return the columns of features, and a line about those that are left out."""
        if self._columns is not None:
            return self._columns, []
        others = [n for n in table.cells if n not in (self._label, self._split_column)]
        if table.path.suffix.lower() == ".npz":
            others = [name for name in others if name not in ("label", "split")]
        texts = [name for name in others if table.is_text(name)]
        columns = tuple(name for name in others if name not in texts)
        notes = []
        if texts:
            shown = ", ".join(f"'{n}'" for n in texts[:5]) + " …" * (len(texts) > 5)
            notes.append(f"{len(texts)} columns without a number are left out: {shown}")
        if table.unnamed:
            notes.append(f"{table.unnamed} columns without a name are left out")
        if not columns:
            raise UserError(f"the table {table.path} has no column of numbers beside its label")
        return columns, notes

    def _classes(self, table: TableFile) -> list[str]:
        """Return the class of each row."""
        found = [class_name(cell) for cell in table.column(self._label, "dataset.options.label")]
        if "" in found:
            line = table.lines[found.index("")]
            raise UserError(f"{table.path}, line {line}: no class in column '{self._label}'")
        return found

    def _dealt(self, tables: Mapping[str, TableFile], names: list[str]) -> dict[str, list[str]]:
        """Return the class names of each split."""
        where = f"dataset table: {self._path}"
        if self.recorded_split is not None:
            return {split: list(self.recorded_split.get(split, [])) for split in SPLITS}
        if self._all_test:
            return {"train": [], "validate": [], "test": names}
        if self._splits is not None:
            lists = read_class_lists(self._splits)
            return matched_classes(lists, names, f"class lists {self._splits}")
        if self._split_column is not None or "" not in tables:
            found: dict[str, set[str]] = {split: set() for split in SPLITS}
            for split, table in tables.items():
                for name, own in zip(self._classes(table), self._said(split, table), strict=True):
                    found[own].add(name)
            dealt = {split: sorted(found[split]) for split in SPLITS}
            check_classes(dealt, names, where)
            return dealt
        if len(names) < len(SPLITS):
            raise UserError(
                f"{where} holds {len(names)} classes; they are split into meta-train, "
                "meta-validation and meta-test: give at least 3, or, where nothing is trained, "
                "type dataset.options.all_test=true"
            )
        few = max(1, round(0.2 * len(names)))
        return random_split(names, (len(names) - 2 * few, few, few), self._seed)

    def _said(self, split: str, table: TableFile) -> Sequence[str]:
        """Return the split of each row."""
        if self._split_column is None:
            return [split] * len(table)
        cells = table.column(self._split_column, "dataset.options.split_column")
        for line, cell in zip(table.lines, cells, strict=True):
            if cell.lower() not in _CALLED:
                raise UserError(
                    f"{table.path}, line {line}: in column '{self._split_column}' stands "
                    f"'{cell[:40]}': expected train, val or test"
                )
        return [_CALLED[cell.lower()] for cell in cells]

    def _there(
        self, class_lists: dict[str, list[str]], names: list[str]
    ) -> tuple[dict[str, list[str]], list[str]]:
        """Return the lists of classes that are there, and lines about the others."""
        gone = {n for s in self.may_lack for n in class_lists[s] if n not in names}
        kept = {s: [n for n in of if n not in gone] for s, of in class_lists.items()}
        check_classes(kept, names, f"dataset table: {self._path}")
        used = {name for of in kept.values() for name in of}
        unused = [name for name in names if name not in used]
        lines = []
        if gone:
            lines.append(
                f"{len(gone)} classes of this run are not there; evaluated on none of them"
            )
        if unused:
            shown = ", ".join(f"'{n}'" for n in unused[:3]) + " …" * (len(unused) > 3)
            lines.append(f"{len(unused)} classes left out ({shown}): no split names them")
        return kept, lines


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


def _constant(prepared: PreparedData, columns: Sequence[str]) -> list[str]:
    """Return a line about columns that hold one value in all of meta-train."""
    train = prepared.splits["train"]
    rows = train.examples[~train.held_out]
    if not len(rows):
        return []
    same = (rows == rows[0]) | (rows.isnan() & rows[0].isnan())
    names = [f"'{name}'" for name, one in zip(columns, same.all(0).tolist(), strict=True) if one]
    if not names:
        return []
    shown = ", ".join(names[:5]) + " …" * (len(names) > 5)
    return [f"{len(names)} columns are constant in meta-train and say nothing: {shown}"]
