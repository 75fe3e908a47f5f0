"""Texts that nobody has labelled, for `warmstart.unlabelled`: words, and rows of words.

    python scripts/unlabelled_texts.py MODEL/tokenizer.json --output unlabelled.txt dataset=clinc150

Of each word of the vocabulary (a tokenizer of the library `tokenizers`, or a file with a word in
each line) a text; the meta-train texts; these again, with some of their words exchanged for others
of the vocabulary; and random rows of words. What a student reads there it has from the teacher
alone: no text of another class is looked at. The same seed makes the same file.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import metakd
from metakd.data.texts import TextData, unpacked
from metakd.pipeline.prepare import prepare

WORD = re.compile(r"[a-z]{2,}")
EXCHANGED = (0.2, 0.4, 0.6)
"""Shares of a text's words that are exchanged, as often one as the other."""
ROW = (2, 6)
"""Fewest and most words of a row."""


def vocabulary(path: Path) -> list[str]:
    """Return the whole words of small letters in a file, each once."""
    content = path.read_text(encoding="utf-8")
    found = list(json.loads(content)["model"]["vocab"]) if path.suffix == ".json" else []
    return sorted({word for word in found or content.split() if WORD.fullmatch(word)})


def meta_train_texts(words: Sequence[str]) -> list[str]:
    """Return the meta-train texts of the data that `words` name."""
    data = prepare(metakd.compose(*words, "distill=none", "tracker=none")).class_data
    assert isinstance(data, TextData), f"dataset {data.name} holds no texts"
    return [versions[0] for versions in unpacked(data.split("train").examples)]


def made(
    words: Sequence[str], texts: Sequence[str], *, exchanges: int, rows: int, seed: int
) -> Iterator[str]:
    """Return the texts.

    Args:
        words: of the vocabulary.
        texts: of the meta-train classes.
        exchanges: how often each of them comes with other words.
        rows: how many rows of words.
        seed: decides which.
    """
    draw = random.Random(seed)
    yield from words
    yield from texts
    for text in texts:
        for _ in range(exchanges):
            parts = text.split()
            count = max(1, round(draw.choice(EXCHANGED) * len(parts)))
            for place in draw.sample(range(len(parts)), min(count, len(parts))):
                parts[place] = draw.choice(words)
            yield " ".join(parts)
    for _ in range(rows):
        yield " ".join(draw.choice(words) for _ in range(draw.randint(*ROW)))


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("vocabulary", type=Path, help="tokenizer.json, or a file of words")
    parser.add_argument("settings", nargs="*", default=["dataset=clinc150"], help="of the data")
    parser.add_argument("--output", type=Path, default=Path("unlabelled.txt"))
    parser.add_argument("--exchanges", type=int, default=2, help="forms of each meta-train text")
    parser.add_argument("--rows", type=int, default=10000, help="random rows of words")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_intermixed_args(given)
    texts = made(
        vocabulary(asked.vocabulary),
        meta_train_texts(asked.settings),
        exchanges=asked.exchanges,
        rows=asked.rows,
        seed=asked.seed,
    )
    lines = list(dict.fromkeys(texts))
    asked.output.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    print(f"{len(lines)} texts in {asked.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
