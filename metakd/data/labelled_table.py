"""A user's own table: a row for each example, a column of classes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from metakd.data.class_folders import SPLIT_FOLDERS
from metakd.data.class_names import class_name
from metakd.data.class_split import (
    check_classes,
    matched_classes,
    random_split,
    read_class_lists,
)
from metakd.data.splits import SPLITS
from metakd.data.table_file import TableFile, read_table_file
from metakd.errors import UserError

__all__ = ["LabelledTable"]

_CALLED = {word: split for split, words in SPLIT_FOLDERS.items() for word in words}


class LabelledTable:
    """Examples of any kind in the rows of a file, their classes in a column of it.

    The classes are dealt out to meta-train, meta-validation and meta-test as 60 / 20 / 20 % by
    `split_seed`, by the lists in the file `splits` or by a column of the table; or `folder` is a
    folder with a file for each split (``train.csv``, ``val.csv``, ``test.csv``). No class is in
    two splits. A subclass says what an example is.

    Args:
        path: of the file, or of the folder of files.
        splits: JSON file with lists of class names under ``train``, ``val`` and ``test``.
        split_seed: decides the split without lists, and the held-out fifth of each class.
        label: column of classes.
        split_column: column that says ``train``, ``val`` or ``test`` of each row.
        delimiter: between the cells of a CSV file; None: told by its first line.
        encoding: of the file; None: UTF-8, or what its first bytes say.
        all_test: every class is a meta-test class.

    Attributes:
        recorded_split: class names of each split as a run recorded them, set after construction.
        may_lack: splits of `recorded_split` whose classes may be missing, set likewise.
    """

    kind = "classification"
    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]
    """Of the files that are read."""

    def __init__(
        self,
        path: Path,
        *,
        splits: str | None,
        split_seed: int,
        label: str,
        split_column: str | None,
        delimiter: str | None,
        encoding: str | None,
        all_test: bool,
    ) -> None:
        self._path, self._splits = path, Path(splits).expanduser() if splits else None
        self._seed, self._label, self._split_column = split_seed, str(label), split_column
        self._delimiter, self._encoding, self._all_test = delimiter, encoding, all_test
        self.recorded_split: dict[str, list[str]] | None = None
        self.may_lack: tuple[str, ...] = ()
        option = "dataset.options"
        if delimiter is not None and (not isinstance(delimiter, str) or len(delimiter) != 1):
            raise UserError(f"{option}.delimiter={delimiter}: give one character, or null")
        if not isinstance(all_test, bool):
            raise UserError(f"{option}.all_test={all_test}: type true or false")
        ways = {"dataset.splits": splits, f"{option}.split_column": split_column}
        given = [name for name, value in (*ways.items(), (f"{option}.all_test", all_test)) if value]
        if len(given) > 1:
            raise UserError(f"{given[0]} and {given[1]} both say the class split: keep one")

    def sources(self) -> list[Path]:
        """See `Dataset.cache_key`."""
        return [path for _, path in self._files()]

    def _key(self, version: int, *settings: Any) -> str:
        """Return what decides the data; see `Dataset.cache_key`."""
        own = [self._seed, self._label, self._split_column, self._delimiter, self._encoding]
        more = [self._all_test, self.recorded_split, self.may_lack]
        files = [(split, path.name) for split, path in self._files()]
        lists = None if self._splits is None else read_class_lists(self._splits)
        return json.dumps([self.name, version, own, settings, more, files, lists])

    def _tables(self) -> list[tuple[str, TableFile]]:
        """Return the content of the files, with the split that each says."""
        return [
            (split, read_table_file(path, self._delimiter, self._encoding))
            for split, path in self._files()
        ]

    def _files(self) -> list[tuple[str, Path]]:
        """Return the files by split; one alone is under ''."""
        if not self._path.exists():
            raise UserError(f"the table {self._path} is not there: set dataset.folder=FILE.csv")
        if not self._path.is_dir():
            return [("", self._path)]
        found: dict[str, Path] = {}
        for path in sorted(self._path.iterdir()):
            split = _CALLED.get(path.stem.lower())
            if split is None or path.suffix.lower() not in self.suffixes:
                continue
            if split in found:
                raise UserError(f"{found[split]} and {path} are both of the split '{split}'")
            found[split] = path
        if not found:
            return self._other_files()
        if self._splits is not None or self._split_column is not None:
            raise UserError(
                f"the folder {self._path} holds a file for each split already: leave out "
                "dataset.splits and dataset.options.split_column, or name one file"
            )
        return [(split, found[split]) for split in SPLITS if split in found]

    def _other_files(self) -> list[tuple[str, Path]]:
        """Return the files of a folder that is not split; a subclass may know some."""
        *_, last = self.suffixes
        raise UserError(
            f"the folder {self._path} holds no train.csv, val.csv or test.csv (or {last}): "
            "name a file (dataset.folder=FILE.csv)"
        )

    def _classes(self, table: TableFile) -> list[str]:
        """Return the class of each row."""
        found = [class_name(cell) for cell in table.column(self._label, "dataset.options.label")]
        if "" in found:
            line = table.lines[found.index("")]
            raise UserError(f"{table.path}, line {line}: no class in column '{self._label}'")
        return found

    def _dealt(
        self, tables: Sequence[tuple[str, TableFile]], names: list[str]
    ) -> dict[str, list[str]]:
        """Return the class names of each split."""
        where = f"dataset {self.name}: {self._path}"
        if self.recorded_split is not None:
            return {split: list(self.recorded_split.get(split, [])) for split in SPLITS}
        if self._all_test:
            return {"train": [], "validate": [], "test": names}
        if self._splits is not None:
            lists = read_class_lists(self._splits)
            return matched_classes(lists, names, f"class lists {self._splits}")
        if self._split_column is not None or any(split for split, _ in tables):
            found: dict[str, set[str]] = {split: set() for split in SPLITS}
            for split, table in tables:
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
        check_classes(kept, names, f"dataset {self.name}: {self._path}")
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
