"""Texts as tokens of a vocabulary that was learned from the meta-train texts."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Self

import torch

from metakd.data.cache import read_checked, write_checked
from metakd.data.preprocessing import Preprocessing
from metakd.data.text_preprocessing import TextPreprocessing
from metakd.errors import UserError

__all__ = ["TOKENS", "Tokens", "WordPieces"]

SMALLEST = 257  # the 256 bytes, and one token that is learned
_CONTENT = "tokenizer"
_UNKNOWN = "[UNK]"


@dataclass(frozen=True, kw_only=True)
class Tokens(TextPreprocessing):
    """Tokens of a tokenizer of the library `tokenizers`; an id is its number there plus 1.

    One that is learned here is byte-level byte pair encoding (Sennrich et al. 2016), which knows
    every text. One from elsewhere is given by its file's content and takes texts as they are; what
    it adds to each (`[CLS]`) is added.

    Attributes:
        size: of the vocabulary that is learned, at most.
        tokenizer: JSON of the library; empty: not learned yet.
    """

    size: int = 4096
    tokenizer: str = ""

    reads: ClassVar[str] = "tokens"
    kind: ClassVar[str] = "bpe"
    """What is learned, by the name under which it is cached."""

    def __post_init__(self) -> None:
        """See `TextPreprocessing`."""
        super().__post_init__()
        if not self.tokenizer and self.size < SMALLEST:
            raise ValueError(
                f"vocabulary={self.size}: give {SMALLEST} (256 bytes and a token) or more"
            )
        if self.tokenizer:
            try:
                json.loads(self.tokenizer)
            except ValueError as error:
                raise ValueError(f"the tokenizer is no JSON ({error})") from error

    @property
    def vocabulary(self) -> int:
        """The size that was asked for, or that of the tokenizer where it is larger."""
        if not self.tokenizer:
            return self.size
        return max(self.size, _opened(self.tokenizer, self.length).get_vocab_size())

    def fitted(self, texts: Sequence[str], cache_root: Path | None = None) -> Self:
        """See `TextPreprocessing.fitted`; the tokenizer is kept by its texts and settings."""
        if self.tokenizer:
            return self
        library = _library()
        lowered = [self.lowered(text) for text in texts]
        digest = hashlib.sha256("\0".join(lowered).encode()).hexdigest()
        key = json.dumps([self.kind, 1, library.__version__, self.size, digest])
        folder = None if cache_root is None else cache_root / "tokenizers"
        kept = None if folder is None else read_checked(folder, key)
        if kept is not None and _CONTENT in kept[0]:
            return replace(self, tokenizer=bytes(kept[0][_CONTENT].tolist()).decode())
        content = self._learned(library, lowered)
        if folder is not None:
            tensor = torch.tensor(list(content.encode()), dtype=torch.uint8)
            write_checked(folder, key, {_CONTENT: tensor}, {})
        return replace(self, tokenizer=content)

    def learned_from(self, reads: Preprocessing) -> bool:
        """See `Preprocessing.learned_from`."""
        if isinstance(reads, Tokens) and not reads.tokenizer:
            reads = replace(reads, tokenizer=self.tokenizer)
        return super().learned_from(reads)

    def _learned(self, library: Any, texts: Sequence[str]) -> str:
        """Return a tokenizer of `size` tokens or fewer, as JSON."""
        tokenizer = library.Tokenizer(library.models.BPE())
        tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=True)
        trainer = library.trainers.BpeTrainer(
            vocab_size=self.size,
            initial_alphabet=sorted(library.pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        content: str = tokenizer.to_str()
        return content

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        if not self.tokenizer:
            raise ValueError("its vocabulary was not learned yet: call fitted(texts)")
        lowered = [self.lowered(text) for text in texts]
        found = _opened(self.tokenizer, self.length).encode_batch(lowered)
        return [[i + 1 for i in one.ids] for one in found]


@dataclass(frozen=True, kw_only=True)
class WordPieces(Tokens):
    """Tokens of a WordPiece vocabulary (Wu et al. 2016, section 4.1), as BERT's.

    Of each word the longest known piece, then the longest that goes on from there. A word with a
    character that the texts it was learned from do not have is one token, `[UNK]`.
    """

    reads: ClassVar[str] = "wordpieces"
    kind: ClassVar[str] = "wordpiece"

    def _learned(self, library: Any, texts: Sequence[str]) -> str:
        """See `Tokens._learned`."""
        tokenizer = library.Tokenizer(library.models.WordPiece(unk_token=_UNKNOWN))
        tokenizer.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
        trainer = library.trainers.WordPieceTrainer(
            vocab_size=self.size, special_tokens=[_UNKNOWN], show_progress=False
        )
        tokenizer.train_from_iterator(texts, trainer)
        content: str = tokenizer.to_str()
        return content


TOKENS: Mapping[str, type[Tokens]] = {found.kind: found for found in (Tokens, WordPieces)}
"""What networks may learn from the meta-train texts, by name."""


def _library() -> Any:
    # Its threads do not survive the forks of a sweep, and a text takes some microseconds.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        import tokenizers
    except ImportError as error:
        raise UserError(
            "a network that reads tokens needs the package tokenizers: pip install 'metakd[text]', "
            "or take student=text_bag, which does without"
        ) from error
    return tokenizers


@lru_cache(maxsize=8)
def _opened(content: str, length: int) -> Any:
    library = _library()
    try:
        tokenizer = library.Tokenizer.from_str(content)
    except Exception as error:  # the library raises no other class
        raise ValueError(f"the tokenizer cannot be used ({error})") from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(length)
    return tokenizer
