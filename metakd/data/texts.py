"""Texts by class: how they are kept, and how one becomes what a network reads."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from metakd.data.class_data import ClassData
from metakd.data.class_examples import ClassExamples, PreparedData
from metakd.data.preprocessing import Preprocessing
from metakd.data.splits import SPLITS
from metakd.data.text_augment import KINDS, augment_texts
from metakd.data.text_preprocessing import Bytes, TextPreprocessing, joined, shortened

__all__ = ["TextData", "TextReading", "packed", "unpacked"]


@dataclass(frozen=True)
class TextReading:
    """Where texts stand in a table.

    Attributes:
        text: name of the column of texts.
        label: name of the column of classes.
    """

    text: str = "text"
    label: str = "label"


class TextData(ClassData):
    """Texts, read on the CPU once for each fixed view and kept as ids on the device.

    Kept as [n, versions, bytes] uint8: UTF-8 filled up with 0, the text itself first and then its
    paraphrases (all 0: none). Networks take int64 ids [n, length] (`TextPreprocessing`); a batch
    is cut to its longest text. What a network reads it says itself (`reading_of`); before that,
    these are the bytes.
    """

    examples_are = "texts"
    augmentations = KINDS
    asks_readers = True
    preprocessing_type = TextPreprocessing
    reads_unlabelled = "metakd.data.unlabelled_texts.UnlabelledTexts"
    reading_type = TextReading
    preprocessing: TextPreprocessing

    @cached_property
    def _tables(self) -> dict[tuple[str, bool], list[Tensor]]:
        return {}

    @classmethod
    def check(cls, prepared: PreparedData) -> None:
        """See `ClassData.check`."""
        prepared.check(torch.uint8, 3)
        for split in SPLITS:
            first = prepared.splits[split].examples[:, 0]
            if len(first) and bool((first[:, 0] == 0).any()):
                raise ValueError(f"{split}: an empty text")

    @classmethod
    def marks(cls, examples: Tensor) -> Tensor:
        """See `ClassData.marks`; capital and small letters are the same."""
        hashes = [
            int.from_bytes(hashlib.blake2b(versions[0].casefold().encode(), digest_size=7).digest())
            for versions in unpacked(examples)
        ]
        return torch.tensor(hashes, dtype=torch.int64) + 1

    @classmethod
    def measured(cls, train: ClassExamples, prepared: PreparedData) -> TextPreprocessing:
        """Return the reading by bytes, as long as the longest text."""
        reading, longest = prepared.reading, max(8, train.examples.shape[2])
        return Bytes(length=longest, lower=False, text=reading.text, label=reading.label)

    @classmethod
    def fitted(cls, prepared: PreparedData, preprocessing: Preprocessing) -> PreparedData:
        """Return the texts: any can be read in any way."""
        return prepared

    def reading_of(self, reads: Preprocessing, cache_root: Path | None = None) -> TextPreprocessing:
        """See `ClassData.reading_of`.

        What has to be learned is learned from the meta-train texts that are not held out.
        """
        assert isinstance(reads, TextPreprocessing)
        train = self.prepared.splits["train"]
        texts = [versions[0] for versions in unpacked(train.examples[~train.held_out])]
        own = self.preprocessing
        return replace(reads.fitted(texts, cache_root), text=own.text, label=own.label)

    def carrying(self, other: Preprocessing) -> Self:
        """See `ClassData.carrying`."""
        return self._with(self.prepared.splits, self.preprocessing.carrying(other))

    def shown_to(self, preprocessing: Preprocessing) -> Self:
        """See `ClassData.shown_to`: the same texts, read by that network alone."""
        if not preprocessing.differs(self.preprocessing):
            return self
        assert isinstance(preprocessing, TextPreprocessing)
        return self._with(self.prepared.splits, preprocessing.alone())

    def examples(self, split: str, index: Tensor, view: Tensor | None = None) -> Tensor:
        """See `ClassData.examples`; [..., ids] int64, cut to the longest of these texts."""
        row = index.reshape(-1)
        augmented = view is not None and bool(self.augment)
        if augmented:
            assert view is not None
            row = row + view.reshape(-1) * len(self.split(split))
        ids = [table[row] for table in self._table(split, augmented)]
        seen = self._laid_out(ids)
        return seen.view(*index.shape, *seen.shape[1:])

    def by_size(self, split: str) -> Tensor:
        """See `ClassData.by_size`; shorter texts first."""
        return (self._table(split, False)[0] != 0).sum(1).argsort(stable=True)

    def alike(self, support: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
        """See `ClassData.alike`: both as long as the longer one."""
        if support.shape[-1] == query.shape[-1] and self.preprocessing.beside is None:
            return support, query
        own, other = self.preprocessing.alone(), self.preprocessing.beside
        sides: list[list[Tensor]] = []
        for reading in [own] if other is None else [own, other]:
            pair = [
                x if other is None else reading.converted(x, self.preprocessing)
                for x in (support, query)
            ]
            sides.append([F.pad(x, (0, reading.length - x.shape[-1])) for x in pair])
        together = [torch.cat([s.flatten(0, -2), q.flatten(0, -2)]) for s, q in sides]
        count = support.shape[:-1].numel()
        seen = self._laid_out(together)
        return (
            seen[:count].view(*support.shape[:-1], -1),
            seen[count:].view(*query.shape[:-1], -1),
        )

    def _table(self, split: str, augmented: bool) -> list[Tensor]:
        """Return by reading the ids [views * n, length] of a split, view by view, on the device."""
        key = split, augmented
        if key not in self._tables:
            examples, keys = self.prepared.splits[split].examples, None
            views = [self._read(examples, None, None)]
            index = torch.arange(len(examples))
            for view in range(1, self.views if augmented else 1):
                keys = self.keys_of(index, torch.full_like(index, view))
                views.append(self._read(examples, keys, None))
            self._tables[key] = [
                torch.cat(of_reading).to(self.device) for of_reading in zip(*views, strict=True)
            ]
        return self._tables[key]

    def _read(self, examples: Tensor, keys: Tensor | None, active: Tensor | None) -> list[Tensor]:
        """Return by reading the ids [n, length] of texts, on the CPU."""
        versions = unpacked(examples)
        if keys is None:
            texts = [of_text[0] for of_text in versions]
        else:
            texts = augment_texts(versions, keys, self.augment, active)
        own, other = self.preprocessing, self.preprocessing.beside
        return [reading.encode(texts) for reading in ([own] if other is None else [own, other])]

    def _laid_out(self, ids: list[Tensor]) -> Tensor:
        return (shortened(ids[0]) if len(ids) == 1 else joined(*ids)).long()

    def _seen(self, examples: Tensor, keys: Tensor | None, active: Tensor | None) -> Tensor:
        return self._laid_out([ids.to(self.device) for ids in self._read(examples, keys, active)])


def packed(versions: Sequence[Sequence[str]]) -> Tensor:
    """Return texts, each with its paraphrases, as [n, versions, bytes] uint8.

    Args:
        versions: by text, itself and then its paraphrases; no text holds the character 0.
    """
    content = [[text.encode() for text in texts] for texts in versions]
    most = max((len(texts) for texts in content), default=1)
    longest = max((len(text) for texts in content for text in texts), default=1)
    found = torch.zeros(len(content), most, longest, dtype=torch.uint8)
    for row, texts in zip(found.numpy(), content, strict=True):
        for place, text in enumerate(texts):
            row[place, : len(text)] = memoryview(text)
    return found


def unpacked(examples: Tensor) -> list[list[str]]:
    """Return what `packed` packed."""
    found = []
    for row in examples.cpu().numpy():
        texts = [text.tobytes().rstrip(b"\0").decode() for text in row]
        found.append([text for place, text in enumerate(texts) if text or place == 0])
    return found
