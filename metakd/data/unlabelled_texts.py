"""Texts without labels, from which a student learns its teacher's embeddings."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from metakd.data.class_examples import ClassExamples, PreparedData
from metakd.data.table_file import read_table_file
from metakd.data.text_rows import ENDINGS, LONGEST, TextRow, class_file, cut, rows_of_table
from metakd.data.texts import TextData, packed, unpacked
from metakd.errors import UserError

__all__ = ["unlabelled_like"]

TABLES = (".csv", ".tsv", ".jsonl")
SETTING = "warmstart.unlabelled"


def unlabelled_like(data: TextData, place: Path) -> tuple[TextData, list[str]]:
    """Return texts of files as a split `train` of a single class, read as `data` is.

    Args:
        data: those that the student is trained and evaluated on. Texts of its meta-validation and
            meta-test classes are left out, however they are written: capital or small.
        place: a file with a text in each line (.txt), a table (.csv, .tsv, .jsonl) with the
            column of texts that `data` has, or a folder of such files.

    Returns:
        the texts, each once; lines about what was left out.

    Raises:
        UserError: no such file, one that cannot be read, or no text is left.
    """
    rows = [row for path in _files(place) for row in _rows(path, data.preprocessing.text)]
    held = {
        text.casefold()
        for split in ("validate", "test")
        for versions in unpacked(data.prepared.splits[split].examples)
        for text in versions
    }
    given = list(dict.fromkeys(cut(row.text, LONGEST) for row in rows))
    texts = [text for text in given if text.casefold() not in held]
    lines = []
    if len(texts) < len(given):
        lines.append(
            f"{SETTING}: {len(given) - len(texts)} of {len(given)} texts are of meta-validation or "
            "meta-test classes, and are left out"
        )
    if not texts:
        raise UserError(f"{SETTING}: '{place}' holds no text that may be learned from")
    none = torch.zeros(len(texts), dtype=torch.int64)
    whole = ClassExamples(
        packed([[text] for text in texts]),
        none,
        ("unlabelled",),
        none[:1],
        torch.zeros(len(texts), dtype=torch.bool),
    )
    empty = whole.without(whole.class_names)
    prepared = PreparedData(
        {"train": whole, "validate": empty, "test": empty},
        f"{data.name}, unlabelled",
        data.prepared.reading,
    )
    checksum = hashlib.sha256("\0".join(texts).encode()).hexdigest()
    found = type(data)(prepared, data.device, checksum=checksum, preprocessing=data.preprocessing)
    return found, lines


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
        table = class_file(path, text, "")
    else:
        table = read_table_file(path)
    return rows_of_table(table, text, [""] * len(table.lines), SETTING)
