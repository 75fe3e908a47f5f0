"""What a network reads of a text: numbers from 1 on, filled up with 0."""

from __future__ import annotations

import re
import unicodedata
import zlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from metakd.data.preprocessing import Preprocessing
from metakd.errors import UserError

__all__ = ["Bytes", "Ngrams", "TextPreprocessing", "joined", "shortened"]

BUCKETS = 8
"""Lengths that a batch is cut to: eighths of the longest."""
_READINGS = {
    "bytes": ("metakd.data.text_preprocessing", "Bytes"),
    "ngrams": ("metakd.data.text_preprocessing", "Ngrams"),
    "tokens": ("metakd.data.tokens", "Tokens"),
    "wordpieces": ("metakd.data.tokens", "WordPieces"),
}
_WORD = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True, kw_only=True)
class TextPreprocessing(Preprocessing):
    """How a text becomes the ids that a network reads; a subclass for each way of reading.

    An example is int64 [length]: ids from 1 to `vocabulary`, then 0 where the text has ended, so
    that the mask `ids != 0` travels with it. Batches are cut to the first eighths of `length` that
    their longest text needs.

    Attributes:
        length: most ids of a text; the rest of a longer one is not read.
        lower: read small letters only.
        text: name of the column of texts in its table.
        label: name of the column of classes.
        beside: what another network reads of the same texts, whose ids follow in each example
            (`joined`); no part of what is recorded.
    """

    length: int
    lower: bool = True
    text: str = "text"
    label: str = "label"
    beside: TextPreprocessing | None = field(default=None, compare=False, repr=False)

    of: ClassVar[str] = "texts"
    reads: ClassVar[str]
    """What an id stands for, in the plural."""

    def __post_init__(self) -> None:
        """Refuse values that no text can be read with.

        Raises:
            ValueError: naming the field.
        """
        if self.length < BUCKETS:
            raise ValueError(f"length={self.length}: give {BUCKETS} or more")

    # -- what belongs to a way of reading -----------------------------------------------------

    @property
    @abstractmethod
    def vocabulary(self) -> int:
        """The largest id."""

    @abstractmethod
    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return at most `length` ids of each text, one or more."""

    def fitted(self, texts: Sequence[str], cache_root: Path | None = None) -> Self:
        """Return it with what it learns from texts.

        Args:
            texts: of the meta-train classes, without those that are held out.
            cache_root: folder of caches; None: nothing is kept.
        """
        return self

    # -- what is the same for all -------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """(length,); with `beside` that of `joined`."""
        if self.beside is None:
            return (self.length,)
        return tuple(_joined(torch.zeros(self.length), torch.zeros(self.beside.length)).shape)

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Return the ids of texts, int32 [n, length] on the CPU."""
        found = torch.zeros(len(texts), self.length, dtype=torch.int32)
        for row, ids in zip(found, self._ids(texts), strict=True):
            row[: len(ids)] = torch.tensor(ids, dtype=torch.int32)
        return found

    def normalize(self, examples: Tensor) -> Tensor:
        """Return ids [n, length] as the network sees them, cut to the longest, int64."""
        return shortened(examples).long()

    def learned_from(self, reads: Preprocessing) -> bool:
        """See `Preprocessing.learned_from`."""
        return isinstance(reads, TextPreprocessing) and self._same(reads)

    def alone(self) -> Self:
        """Return it without what another network reads."""
        return self if self.beside is None else replace(self, beside=None)

    def carrying(self, other: Preprocessing) -> Self:
        """See `Preprocessing.carrying`."""
        assert isinstance(other, TextPreprocessing)
        return replace(self, beside=None if self._same(other) else other.alone())

    def _same(self, other: TextPreprocessing) -> bool:
        """Tell whether ids mean the same, whatever the columns of a table are called."""
        return replace(other, text=self.text, label=self.label) == self

    def differs(self, given: Preprocessing) -> bool:
        """See `Preprocessing.differs`.

        Raises:
            UserError: the examples hold ids of another reading alone.
        """
        assert isinstance(given, TextPreprocessing)
        if not self._same(given) and (given.beside is None or not self._same(given.beside)):
            raise UserError(f"texts are read as {given.words()}, the network reads {self.words()}")
        return given.beside is not None

    def converted(self, examples: Tensor, given: Preprocessing) -> Tensor:
        """Return the ids of this reading out of examples that hold two."""
        assert isinstance(given, TextPreprocessing) and given.beside is not None
        width = examples.shape[-1]
        first = _width(given.length, width % BUCKETS + 1)
        if self._same(given):
            return examples[..., :first]
        return examples[..., first : first + self.length]  # what fills up the width is no text

    def plain(self) -> dict[str, Any]:
        """See `Preprocessing.plain`."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "beside"}
        own = {name: list(v) if isinstance(v, tuple) else v for name, v in own.items()}
        return {"kind": "text", "reads": self.reads, **own}

    @classmethod
    def _from_plain(cls, content: Mapping[str, Any]) -> TextPreprocessing:
        module, name = _READINGS[content["reads"]]
        found: type[TextPreprocessing] = getattr(import_module(module), name)
        given: dict[str, Any] = {}
        for f in fields(found):
            if f.name == "beside":
                continue
            value = content[f.name]
            kinds: dict[str, type] = {"int": int, "bool": bool, "str": str}
            if f.type in kinds and type(value) is not kinds[str(f.type)]:
                raise TypeError(f"{f.name}: {str(value)[:40]!r}")
            given[f.name] = tuple(int(v) for v in value) if isinstance(value, list) else value
        return found(**given)

    def words(self) -> str:
        """Return it in a few words."""
        return f"{self.reads} (of {self.vocabulary}, at most {self.length} of a text)"

    def with_statistics(self, mean: tuple[float, ...], std: tuple[float, ...]) -> Self:
        """Return it: ids have no mean and deviation."""
        return self

    def lowered(self, text: str) -> str:
        """Return a text with accents composed (NFC), in small letters where `lower` says so."""
        composed = unicodedata.normalize("NFC", text)
        return composed.lower() if self.lower else composed


@dataclass(frozen=True, kw_only=True)
class Bytes(TextPreprocessing):
    """The bytes of a text in UTF-8; what texts are before any network says what it reads."""

    reads: ClassVar[str] = "bytes"

    @property
    def vocabulary(self) -> int:
        """256."""
        return 256

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        return [[b + 1 for b in self.lowered(t).encode()[: self.length]] for t in texts]


@dataclass(frozen=True, kw_only=True)
class Ngrams(TextPreprocessing):
    """Words and their pieces of some characters, by a hash; nothing has to be learned or kept.

    A word is a run of letters and digits, or one other character. Of `<word>` the whole and every
    piece of `sizes` characters counts. The id of a piece is 1 + CRC-32 of its UTF-8 bytes modulo
    `buckets`; different pieces may share one (Bojanowski et al. 2017, "Enriching word vectors with
    subword information", section 3.2, with another hash).

    Attributes:
        buckets: number of ids.
        sizes: numbers of characters of the pieces.
    """

    buckets: int
    sizes: tuple[int, ...] = (3, 4)

    reads: ClassVar[str] = "ngrams"

    def __post_init__(self) -> None:
        """See `TextPreprocessing`."""
        super().__post_init__()
        if self.buckets < 1:
            raise ValueError(f"buckets={self.buckets}: give a positive number")
        if any(size < 1 for size in self.sizes):
            raise ValueError(f"sizes={list(self.sizes)}: give positive numbers")

    @property
    def vocabulary(self) -> int:
        """`buckets`."""
        return self.buckets

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        found = []
        for text in texts:
            words = _WORD.findall(self.lowered(text))
            ids = [i for word in words for i in _pieces(word, self.sizes, self.buckets)]
            found.append(ids[: self.length])
        return found


@lru_cache(maxsize=1 << 17)
def _pieces(word: str, sizes: tuple[int, ...], buckets: int) -> tuple[int, ...]:
    """Return the ids of a word and of its pieces."""
    whole = f"<{word}>"
    pieces = [whole]
    for size in sizes:
        pieces += [whole[i : i + size] for i in range(len(whole) - size + 1)]
    return tuple(1 + zlib.crc32(piece.encode()) % buckets for piece in pieces)


def _width(length: int, eighths: int) -> int:
    return -(-length * eighths // BUCKETS)


def shortened(ids: Tensor) -> Tensor:
    """Return ids [n, length] without columns that hold no text, in eighths of `length`."""
    return ids[:, : _width(ids.shape[1], _eighths(ids))]


def _eighths(ids: Tensor) -> int:
    """Return how many eighths of the columns of [n, length] hold text, at least one."""
    length = ids.shape[1]
    longest = int((ids != 0).any(0).sum()) if len(ids) else 0
    return next(e for e in range(1, BUCKETS + 1) if _width(length, e) >= longest)


def joined(first: Tensor, second: Tensor) -> Tensor:
    """Return the ids that two networks read of the same texts, one after the other.

    Both are cut to the longest text. The width modulo 8 tells how many eighths of its length the
    first reading takes: so what it sees does not depend on the second, and `converted` can part
    them where values cannot be looked at (under `torch.func.vmap`).

    Args:
        first: [n, length] ids.
        second: [n, other length] ids.
    """
    return _joined(shortened(first), shortened(second), _eighths(first))


def _joined(first: Tensor, second: Tensor, eighths: int = BUCKETS) -> Tensor:
    both = torch.cat([first, second], dim=-1)
    return F.pad(both, (0, (eighths - 1 - both.shape[-1]) % BUCKETS))
