"""A user's own texts: a table with columns of texts and classes, or a file for each class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from metakd.data.class_examples import PreparedData
from metakd.data.labelled_table import LabelledTable, TableFormat
from metakd.data.table_file import TableFile, read_table_file
from metakd.data.text_rows import (
    ENDINGS,
    LONGEST,
    class_file,
    cleaned,
    prepared_texts,
    rows_of_table,
)
from metakd.data.texts import TextData, TextReading
from metakd.errors import UserError

__all__ = ["TextTable", "paraphrases_of"]

_VERSION = 1  # raised whenever the same settings give other texts


class TextTable(LabelledTable):
    """Texts and their classes from a CSV, TSV or JSONL file, or a folder of files.

    A folder holds a table for each split (``train.csv``, ``val.jsonl`` …), or a file for each class
    (``refund.txt``), with a text in each line.

    Args:
        data_root: folder of datasets; its ``texts.csv`` is read where `folder` is None.
        folder: the file, or the folder of files.
        splits: see `OwnClasses`.
        split_seed: likewise; also decides the held-out fifth of each class.
        text: column of texts.
        paraphrases: a table with the columns `text` and ``paraphrase``, a row for each way to say a
            text in other words; for the augmentation `paraphrase`.
        longest: bytes (UTF-8) of a text that are kept.
        all_test: every class is a meta-test class.
        file: what stands where in it.
    """

    name = "text_table"
    suffixes = (".csv", ".tsv", ".jsonl")
    data_class: ClassVar[type[TextData]] = TextData

    def __init__(
        self,
        data_root: Path,
        *,
        folder: str | None = None,
        splits: str | None = None,
        split_seed: int = 0,
        text: str = "text",
        paraphrases: str | None = None,
        longest: int = LONGEST,
        all_test: bool = False,
        file: TableFormat = TableFormat(),
    ) -> None:
        place = Path(folder).expanduser() if folder else data_root / "texts.csv"
        super().__init__(place, splits, split_seed, all_test, file)
        self._text, self._longest = str(text), longest
        self._paraphrases = Path(str(paraphrases)).expanduser() if paraphrases else None
        if isinstance(longest, bool) or not isinstance(longest, int) or longest < 8:
            raise UserError(f"dataset.options.longest={longest}: give a number of bytes, 8 or more")
        if self._text == self._file.label:
            raise UserError(f"dataset.options.text={text} is dataset.options.label, too")

    def cache_key(self) -> str:
        """See `Dataset.cache_key`."""
        return self._key(_VERSION, self._text, self._longest, str(self._paraphrases))

    def sources(self) -> list[Path]:
        """See `Dataset.cache_key`."""
        return super().sources() + ([self._paraphrases] if self._paraphrases else [])

    def load(self) -> PreparedData:
        """See `Dataset.load`."""
        tables = self._tables()
        rows = [
            row
            for _, table in tables
            for row in rows_of_table(table, self._text, self._classes(table))
        ]
        names = sorted({row.label for row in rows})
        class_lists, more = self._class_lists(tables, names)
        said = paraphrases_of(self._paraphrases, self._text, self._file.encoding)
        prepared = prepared_texts(
            self.name,
            rows,
            class_lists,
            seed=self._seed,
            held_out=self._tests(tables),
            paraphrases=said,
            longest=self._longest,
        )
        unknown = said.keys() - {row.text for row in rows}
        if unknown:
            more.append(f"{len(unknown)} texts with paraphrases are not in the table")
        notes = (*prepared.notes, *(f"dataset {self.name}: {line}" for line in more))
        return replace(prepared, reading=TextReading(self._text, self._file.label), notes=notes)

    def _other_files(self) -> list[tuple[str, Path]]:
        found = [p for p in sorted(self.place.iterdir()) if p.suffix.lower() in ENDINGS]
        if not found:
            raise UserError(
                f"the folder {self.place} holds neither train.csv, val.csv or test.csv (or .tsv, "
                ".jsonl) nor a .txt file for each class: name a file (dataset.folder=FILE.csv)"
            )
        if self._file.split_column is not None:
            raise UserError(
                f"dataset.options.split_column={self._file.split_column}: {self.place} holds a "
                "file for each class, without columns: leave it out"
            )
        return [("", path) for path in found]

    def _tables(self) -> list[tuple[str, TableFile]]:
        return [
            (
                split,
                class_file(path, self._text, self._file.label, self._file.encoding)
                if path.suffix.lower() in ENDINGS
                else read_table_file(path, self._file.delimiter, self._file.encoding),
            )
            for split, path in self._files()
        ]


def paraphrases_of(
    path: Path | None, text: str, encoding: str | None = None
) -> Mapping[str, list[str]]:
    """Return by text other ways of saying it.

    Args:
        path: of a table with the columns `text` and ``paraphrase``; None: there are none.
        text: name of the column of texts.
        encoding: see `decoded`.

    Raises:
        UserError: the table cannot be used.
    """
    found: dict[str, list[str]] = {}
    if path is None:
        return found
    table = read_table_file(path, encoding=encoding)
    columns = [table.column(name, "dataset.options.paraphrases") for name in (text, "paraphrase")]
    for line, *cells in zip(table.lines, *columns, strict=True):
        own, other = (cleaned(cell, f"{path}, line {line}") for cell in cells)
        found.setdefault(own, []).append(other)
    return found
