"""Texts without labels, from which a student learns its teacher's embeddings."""

from __future__ import annotations

from pathlib import Path

import torch

from metakd.data.class_examples import ClassExamples, PreparedData
from metakd.data.table_file import read_table_file
from metakd.data.text_preprocessing import TextPreprocessing
from metakd.data.text_rows import ENDINGS, LONGEST, TextRow, class_file, cut, rows_of_table
from metakd.data.texts import TextData, TextReading, packed
from metakd.data.unlabelled import SETTING
from metakd.errors import UserError

__all__ = ["UnlabelledTexts"]

TABLES = (".csv", ".tsv", ".jsonl")


class UnlabelledTexts:
    """Texts of files, each once, as a meta-train class.

    Args:
        place: a file with a text in each line (.txt), a table (.csv, .tsv, .jsonl), or a folder of
            such files.
        like: names the column of texts.

    Raises:
        UserError: no such file, or one that cannot be read.
    """

    kind = "classification"
    data_class = TextData

    def __init__(self, place: Path, like: TextPreprocessing) -> None:
        self._place, self._text, self._label = place, like.text, like.label
        self._files = _files(place)

    def cache_key(self) -> None:
        """See `Dataset.cache_key`: they are read each time."""

    def load(self) -> PreparedData:
        """See `Dataset.load`."""
        rows = [row for path in self._files for row in _rows(path, self._text)]
        texts = list(dict.fromkeys(cut(row.text, LONGEST) for row in rows))
        none = torch.zeros(len(texts), dtype=torch.int64)
        whole = ClassExamples(
            packed([[text] for text in texts]), none, (".",), none[:1], none.to(torch.bool)
        )
        empty = whole.without(whole.class_names)
        splits = {"train": whole, "validate": empty, "test": empty}
        return PreparedData(splits, self._place.name, TextReading(self._text, self._label))


def _files(place: Path) -> list[Path]:
    endings = (*ENDINGS, *TABLES)
    if place.is_dir():
        found = [path for path in sorted(place.iterdir()) if path.suffix.lower() in endings]
    else:
        found = [place] if place.is_file() and place.suffix.lower() in endings else []
    if not found:
        raise UserError(
            f"{SETTING}: '{place}' is neither a file of texts ({', '.join(endings)}) nor a folder "
            "with one"
        )
    return found


def _rows(path: Path, text: str) -> list[TextRow]:
    if path.suffix.lower() in ENDINGS:
        table = class_file(path, text, "", of_dataset=False)
    else:
        table = read_table_file(path, of_dataset=False)
    return rows_of_table(table, text, [""] * len(table.lines), SETTING)
