"""Texts as a network reads them: ids, 0 where a text has ended. NumPy, and for tokens `tokenizers`.

What `metakd.data.text_preprocessing` and `metakd.data.tokens` do, to the same ids.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from metakd.data.class_names import class_name

__all__ = ["MOST_LENGTH", "SUFFIXES", "Texts"]

SUFFIXES = (".txt", ".text")
MOST_LENGTH, MOST_BUCKETS = 1 << 20, (1 << 31) - 1
"""Ids of a text, for which there is memory, and different ones, which int32 holds."""
MOST_SIZES = 64
"""Sizes of pieces, and characters of a piece."""
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_WORD = re.compile(r"\w+|[^\w\s]")


class Texts:
    """How texts are prepared for a network; a .txt file holds one in each line.

    Args:
        said: `preprocessing` of bundle.json.

    Raises:
        ImportError: it reads tokens, and `tokenizers` is not installed.
        KeyError, TypeError, ValueError: it says something else.
    """

    what = "texts"

    def __init__(self, said: Mapping[str, Any]) -> None:
        self.length, self.lower = int(said["length"]), bool(said["lower"])
        self.reads, self.tokenizer = str(said["reads"]), None
        if not 1 <= self.length <= MOST_LENGTH:
            raise ValueError(f"preprocessing: length is between 1 and {MOST_LENGTH}")
        if self.reads == "ngrams":
            self.buckets = int(said["buckets"])
            self.sizes = tuple(int(size) for size in said["sizes"])
            if not 1 <= self.buckets <= MOST_BUCKETS:
                raise ValueError(f"preprocessing: buckets is between 1 and {MOST_BUCKETS}")
            if len(self.sizes) > MOST_SIZES or not all(1 <= n <= MOST_SIZES for n in self.sizes):
                raise ValueError(
                    f"preprocessing: sizes are at most {MOST_SIZES}, each between 1 and "
                    f"{MOST_SIZES}"
                )
        elif self.reads in ("tokens", "wordpieces"):
            import tokenizers

            self.tokenizer = tokenizers.Tokenizer.from_str(said["tokenizer"])
            self.tokenizer.enable_truncation(self.length)
            self.tokenizer.no_padding()
        elif self.reads != "bytes":
            raise ValueError(f"unknown way of reading: {self.reads[:40]!r}")

    @property
    def kept(self) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Shape and type of a text that is kept: its ids."""
        return (self.length,), np.dtype(np.int32)

    def by_class(self, folder: Path) -> list[tuple[str, list[Any]]]:
        """Return the texts of each class: its name is that of a file in the folder.

        Raises:
            OSError, ValueError: it cannot be read.
        """
        return [(class_name(file.stem), self.lines(file)) for file in _files(folder)]

    def asked(self, path: Path) -> list[tuple[str, str, Any]]:
        """Return (class, place, text) of each text to name; no class where a file is named.

        Raises:
            OSError, ValueError: it cannot be read, or is no file of texts.
        """
        found = [("", path)]
        if path.is_dir():
            found = [(class_name(file.stem), file) for file in _files(path)]
        elif path.exists() and path.suffix.lower() not in SUFFIXES:
            raise ValueError("run.py reads .txt files; MetaKD reads tables: metakd predict")
        return [
            (name, f"{file}:{number}", text)
            for name, file in found
            for number, text in self.numbered(file)
        ]

    def lines(self, file: Path) -> list[str]:
        """Return the texts of a file; see `numbered`."""
        return [text for _, text in self.numbered(file)]

    def numbered(self, file: Path) -> list[tuple[int, str]]:
        """Return the texts of a file with the number of their line, single blanks between words.

        Empty lines are left out.
        A line ends with a line feed alone, and the file is UTF-16 where it begins with its mark, as
        in `metakd.data.text_rows.class_file`.
        """
        content = file.read_bytes()
        text = content.decode("utf-16" if content.startswith(_UTF16) else "utf-8")
        lines = text.removeprefix("\ufeff").replace("\0", " ").split("\n")
        words = [(number, " ".join(line.split())) for number, line in enumerate(lines, 1)]
        return [(number, text) for number, text in words if text]

    def read(self, text: Any) -> np.ndarray:
        """Return the ids [length] int32 of a text."""
        composed = unicodedata.normalize("NFC", text)
        composed = composed.lower() if self.lower else composed
        ids = np.zeros(self.length, np.int32)
        found = self._ids(composed)[: self.length]
        ids[: len(found)] = found
        return ids

    def seen(self, ids: np.ndarray) -> np.ndarray:
        """Return ids [n, length] as the network takes them, int64."""
        return ids.astype(np.int64)

    def _ids(self, text: str) -> list[int]:
        if self.tokenizer is not None:
            return [i + 1 for i in self.tokenizer.encode(text).ids]
        if self.reads == "bytes":
            return [byte + 1 for byte in text.encode()]
        found = []
        for word in _WORD.findall(text):
            whole = f"<{word}>"
            pieces = [whole]
            for size in self.sizes:
                pieces += [whole[i : i + size] for i in range(len(whole) - size + 1)]
            found += [1 + zlib.crc32(piece.encode()) % self.buckets for piece in pieces]
        return found


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
