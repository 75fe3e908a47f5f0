"""A user's own table: a row for each example, a column of classes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, ClassVar

from metakd.data.class_folders import SPLIT_FOLDERS
from metakd.data.class_names import class_name
from metakd.data.class_split import check_classes, read_class_lists
from metakd.data.own_classes import OwnClasses, doubtful_names, listed
from metakd.data.splits import SPLITS
from metakd.data.table_file import TableFile, read_table_file
from metakd.errors import UserError, nearest

__all__ = ["LabelledTable", "TableFormat"]

_CALLED = {word: split for split, words in SPLIT_FOLDERS.items() for word in words}


@dataclass(frozen=True)
class TableFormat:
    """What stands where in the file of a table.

    Attributes:
        label: column of classes.
        split_column: column that says ``train``, ``val`` or ``test`` of each row.
        delimiter: between the cells of a CSV file; None: told by its first line.
        encoding: of the file; None: UTF-8, or what its first bytes say.

    Raises:
        UserError: `delimiter` is no character.
    """

    label: str = "label"
    split_column: str | None = None
    delimiter: str | None = None
    encoding: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", str(self.label))
        one = self.delimiter
        if one is not None and (not isinstance(one, str) or len(one) != 1):
            raise UserError(f"dataset.options.delimiter={one}: give one character, or null")


class LabelledTable(OwnClasses):
    """Examples of any kind in the rows of a file, their classes in a column of it.

    The splits can stand in a column of the table; or `place` is a folder with a file for each
    split (``train.csv``, ``val.csv``, ``test.csv``). Where it is taken as a whole dataset
    (`by_examples`) and they hold the same classes, the rows of ``test`` are held out, or, without
    that, of ``val``. A subclass says what an example is.

    Args:
        place: the file, or the folder of files.
        splits: see `OwnClasses`.
        split_seed: likewise; also decides the held-out fifth of each class.
        all_test: every class is a meta-test class.
        file: what stands where in it.

    Attributes:
        by_examples: set after construction: splits that hold the same classes hold out rows.
    """

    suffixes: ClassVar[tuple[str, ...]]
    """Of the files that are read."""
    by_examples = False

    def __init__(
        self, place: Path, splits: str | None, split_seed: int, all_test: bool, file: TableFormat
    ) -> None:
        super().__init__(place, splits, split_seed, all_test)
        self._file = file
        ways = {"splits": splits, "options.all_test": all_test}
        for name in [name for name, value in ways.items() if value and file.split_column]:
            raise UserError(
                f"dataset.{name} and dataset.options.split_column both say the class split: "
                "keep one"
            )

    def sources(self) -> list[Path]:
        """See `Dataset.cache_key`."""
        return [path for _, path in self._files()]

    def _key(self, version: int, *settings: Any) -> str:
        """Return what decides the data; see `Dataset.cache_key`."""
        own = [self._seed, *astuple(self._file)]
        more: list[Any] = [self._all_test, self.recorded_split, self.may_lack]
        if self.by_examples:
            more.append("by_examples")
        files = [(split, path.name) for split, path in self._files()]
        lists = None if self._splits is None else read_class_lists(self._splits)
        return json.dumps([self.name, version, own, settings, more, files, lists])

    def _tables(self) -> list[tuple[str, TableFile]]:
        """Return the content of the files, with the split that each says."""
        return [
            (split, read_table_file(path, self._file.delimiter, self._file.encoding))
            for split, path in self._files()
        ]

    def _files(self) -> list[tuple[str, Path]]:
        """Return the files by split; one alone is under ''."""
        if not self.place.exists():
            raise UserError(f"the table {self.place} is not there: set dataset.folder=FILE.csv")
        if not self.place.is_dir():
            return [("", self.place)]
        found: dict[str, Path] = {}
        for path in sorted(self.place.iterdir()):
            split = _CALLED.get(path.stem.lower())
            if split is None or path.suffix.lower() not in self.suffixes:
                continue
            if split in found:
                raise UserError(f"{found[split]} and {path} are both of the split '{split}'")
            found[split] = path
        if not found:
            return self._other_files()
        if self._splits is not None or self._file.split_column is not None:
            raise UserError(
                f"the folder {self.place} holds a file for each split already: leave out "
                "dataset.splits and dataset.options.split_column, or name one file"
            )
        return [(split, found[split]) for split in SPLITS if split in found]

    def _other_files(self) -> list[tuple[str, Path]]:
        """Return the files of a folder that is not split; a subclass may know some."""
        *_, last = self.suffixes
        raise UserError(
            f"the folder {self.place} holds no train.csv, val.csv or test.csv (or {last}): "
            "name a file (dataset.folder=FILE.csv)"
        )

    def _classes(self, table: TableFile) -> list[str]:
        """Return the class of each row."""
        found = [
            class_name(cell) for cell in table.column(self._file.label, "dataset.options.label")
        ]
        if "" in found:
            line = table.lines[found.index("")]
            raise UserError(f"{table.path}, line {line}: no class in column '{self._file.label}'")
        return found

    def _class_lists(
        self, tables: Sequence[tuple[str, TableFile]], names: list[str]
    ) -> tuple[dict[str, list[str]], list[str]]:
        """Return the class names of each split, and lines about doubtful ones."""
        if self._tests(tables) is not None:
            lines = doubtful_names(names)
            if {"validate", "test"} <= {own for s, t in tables for own in self._rows(s, t)}:
                lines.append(
                    "the rows of 'val' are training rows, of which task.validate_share are kept "
                    "for validation"
                )
            return {"train": names, "validate": [], "test": []}, lines
        dealt = self._dealt(names, self._said(tables))
        kept, lines = self._without_lacking(dealt, lambda _, name: name in names)
        check_classes(kept, names, f"dataset {self.name}: {self.place}")
        used = {name for of in kept.values() for name in of}
        unused = [name for name in names if name not in used]
        if unused:
            lines.append(
                f"{len(unused)} classes left out ({listed(unused, 3)}): no split names them"
            )
        return kept, [*lines, *doubtful_names(name for name in names if name in used)]

    def _said(self, tables: Sequence[tuple[str, TableFile]]) -> dict[str, list[str]] | None:
        """Return the class names of each split as column or files say it; None: not asked."""
        in_files = self._splits_in_files(tables)
        if self._all_test or self.recorded_split is not None or not in_files:
            return None
        found: dict[str, set[str]] = {split: set() for split in SPLITS}
        for split, table in tables:
            for name, own in zip(self._classes(table), self._rows(split, table), strict=True):
                found[own].add(name)
        return {split: sorted(found[split]) for split in SPLITS}

    def _tests(self, tables: Sequence[tuple[str, TableFile]]) -> list[bool] | None:
        """Return which rows are for testing a whole dataset; None: the files do not say it.

        They do where a class stands in two splits; else the splits are those of classes.

        Raises:
            UserError: a class has such rows alone.
        """
        if not self.by_examples or not self._splits_in_files(tables):
            return None
        names = [name for _, table in tables for name in self._classes(table)]
        splits = [own for split, table in tables for own in self._rows(split, table)]
        if len({*zip(names, splits, strict=True)}) == len({*names}):
            return None
        held = "test" if "test" in splits else "validate"
        learned = {name for name, own in zip(names, splits, strict=True) if own != held}
        for name in names:
            if name not in learned:
                raise UserError(
                    f"dataset {self.name}: {self.place}: class '{name}' has test rows and none to "
                    f"train on: add some, or leave it out.{nearest(name, sorted(learned))}"
                )
        return [own == held for own in splits]

    def _splits_in_files(self, tables: Sequence[tuple[str, TableFile]]) -> bool:
        return self._file.split_column is not None or any(split for split, _ in tables)

    def _rows(self, split: str, table: TableFile) -> Sequence[str]:
        """Return the split of each row."""
        if self._file.split_column is None:
            return [split] * len(table)
        cells = table.column(self._file.split_column, "dataset.options.split_column")
        for line, cell in zip(table.lines, cells, strict=True):
            if cell.lower() not in _CALLED:
                raise UserError(
                    f"{table.path}, line {line}: in column '{self._file.split_column}' stands "
                    f"'{cell[:40]}': expected train, val or test"
                )
        return [_CALLED[cell.lower()] for cell in cells]
