"""What a network reads of a text: hashed n-grams by hand, tokens that are learned, two readings."""

from __future__ import annotations

import json
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from metakd.data.preprocessing import Preprocessing
from metakd.data.text_preprocessing import Bytes, Ngrams, TextPreprocessing, joined, shortened
from metakd.data.tokens import Tokens, WordPieces
from metakd.errors import UserError

TEXTS = ["book a flight", "cancel the flight", "what is my balance", "ÉTÉ à la 日本 ☂", "a"] * 3


def learned(size: int = 280, length: int = 16, cache: Path | None = None) -> Tokens:
    return Tokens(length=length, size=size).fitted(TEXTS, cache)


def test_ngrams_are_the_words_and_their_pieces_by_crc32() -> None:
    reads = Ngrams(length=16, buckets=1000, sizes=(3,))
    pieces = ["<ab>", "<ab", "ab>", "<!>", "<!>", "<É>".lower(), "<é>"]
    # CRC-32 of b"<ab" is 0x5FBF3BA0 by the standard's own bitwise definition below.
    crc = 0xFFFFFFFF
    for byte in b"<ab":
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xEDB88320 if crc & 1 else 0)
    assert crc ^ 0xFFFFFFFF == zlib.crc32(b"<ab")
    expected = [1 + zlib.crc32(piece.encode()) % 1000 for piece in pieces]
    ids = reads.encode(["AB! É", "x" * 99])
    assert ids.dtype == torch.int32
    assert ids[0].tolist() == expected + [0] * 9
    assert bool((ids[1] > 0).all())  # the rest of a long one is not read
    assert reads.shape == (16,)
    assert reads.vocabulary == 1000
    assert replace(reads, lower=False).encode(["AB"])[0, 1] == 1 + zlib.crc32(b"<AB") % 1000


def test_bytes() -> None:
    assert Bytes(length=8, lower=False).encode(["Aé"]).tolist() == [[66, 196, 170, 0, 0, 0, 0, 0]]


def test_tokens_are_learned_from_the_texts_and_read_any_other() -> None:
    reads = learned()
    ids = reads.encode([*TEXTS, "совсем другое \U0001f600"])
    assert ids.shape == (16, 16)
    assert int(ids.max()) <= 280 == reads.vocabulary
    merged = reads.encode(["flight"])[0]
    assert int((merged > 0).sum()) < 6  # it stood often enough to be more than letters
    assert torch.equal(reads.encode(["FLIGHT"])[0], merged)
    assert not torch.equal(replace(reads, lower=False).encode(["FLIGHT"])[0], merged)
    assert learned(size=257).encode(["flight"])[0].count_nonzero() > merged.count_nonzero()
    assert reads.fitted(["other texts"]) is reads
    with pytest.raises(ValueError, match="not learned yet"):
        Tokens(length=16).encode(["a"])


def test_wordpieces_are_the_longest_known_ones_from_the_left(tmp_path: Path) -> None:
    reads = WordPieces(length=8, size=300).fitted(TEXTS, tmp_path)
    vocabulary = json.loads(reads.tokenizer)["model"]["vocab"]
    assert len(vocabulary) <= 300
    for word in ("flight", "flightance", "bal"):
        rest, expected = word, []
        while rest:  # by the definition; pieces that go on are marked by ##
            mark = "##" if expected else ""
            pieces = (rest[:n] for n in range(len(rest), 0, -1) if mark + rest[:n] in vocabulary)
            longest = next(pieces)
            expected.append(1 + vocabulary[mark + longest])
            rest = rest[len(longest) :]
        assert reads.encode([word.upper()])[0].tolist() == expected + [0] * (8 - len(expected))
    assert reads.encode(["ж flight"])[0, 0] == 1 + vocabulary["[UNK]"]
    # Those of bytes, of the same texts and size, are kept apart.
    assert Tokens(length=8, size=300).fitted(TEXTS, tmp_path).tokenizer != reads.tokenizer
    assert not reads.learned_from(Tokens(length=8, size=300))
    assert reads.learned_from(WordPieces(length=8, size=300))


def test_a_vocabulary_is_kept_and_the_same_in_another_process(tmp_path: Path) -> None:
    kept = learned(cache=tmp_path)
    (file,) = (tmp_path / "tokenizers").iterdir()
    code = (
        "from metakd.data.tokens import Tokens; import json, sys;"
        "print(json.dumps(Tokens(length=16, size=280).fitted(json.load(sys.stdin)).tokenizer))"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(TEXTS), capture_output=True, text=True
    )
    assert json.loads(told.stdout) == kept.tokenizer
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tokens, "_learned", lambda *_: pytest.fail("learned again"))
        assert learned(cache=tmp_path) == kept
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    assert learned(cache=tmp_path) == kept  # a damaged one is learned anew


def test_from_plain_gives_the_same_reading() -> None:
    pieces = WordPieces(length=16, size=280).fitted(TEXTS)
    for reads in (Bytes(length=9), Ngrams(length=16, buckets=99, sizes=(2, 5)), learned(), pieces):
        plain = json.loads(json.dumps(reads.plain()))
        again = Preprocessing.from_plain(plain)
        assert again == reads
        assert again.words() == reads.words()
        for key in set(plain) - {"kind"}:
            with pytest.raises(ValueError, match="not a preprocessing"):
                Preprocessing.from_plain({k: v for k, v in plain.items() if k != key})
    with pytest.raises(ValueError, match="the tokenizer is no JSON"):
        Preprocessing.from_plain({**learned().plain(), "tokenizer": "{"})


def test_a_batch_is_cut_to_the_eighths_that_its_longest_text_needs() -> None:
    ids = torch.zeros(2, 20, dtype=torch.int32)
    for longest, width in ((0, 3), (1, 3), (3, 3), (4, 5), (8, 8), (9, 10), (20, 20)):
        ids[1, :longest] = 7
        assert shortened(ids).shape == (2, width)
        assert torch.equal(shortened(ids), ids[:, :width])


def readings() -> tuple[TextPreprocessing, TextPreprocessing]:
    return Ngrams(length=40, buckets=99), learned(length=12)


@pytest.mark.parametrize("swapped", [False, True])
def test_two_readings_of_a_text_are_parted_again(swapped: bool) -> None:
    first, second = readings()[:: -1 if swapped else 1]
    given = first.carrying(second)
    assert given == first  # what is recorded says nothing of the other
    assert given.carrying(first).beside is None
    for texts in (["a"], ["a", "book a flight to"], ["word " * 50, "b"]):
        own, other = first.encode(texts), second.encode(texts)
        together = joined(own, other).long()
        assert first.differs(given)
        assert second.differs(given)
        assert torch.equal(first.converted(together, given), shortened(own).long())
        found = second.converted(together, given)
        assert torch.equal(found[:, : shortened(other).shape[1]], shortened(other).long())
        assert not found[:, shortened(other).shape[1] :].any()
        # Also where values cannot be looked at.
        mapped = torch.func.vmap(lambda x: first.converted(x, given))(together[None])
        assert torch.equal(mapped[0], shortened(own).long())
    full = torch.zeros(3, *given.shape)
    assert first.converted(full, given).shape == (3, first.length)
    assert second.converted(full, given).shape == (3, second.length)
    with pytest.raises(UserError, match=r"texts are read as ngrams .* the network reads bytes"):
        Bytes(length=8).differs(Ngrams(length=40, buckets=99))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Ngrams(length=7, buckets=5), "length=7"),
        (lambda: Ngrams(length=8, buckets=0), "buckets=0"),
        (lambda: Ngrams(length=8, buckets=5, sizes=(0,)), r"sizes=\[0\]"),
        (lambda: Tokens(length=8, size=256), "vocabulary=256"),
    ],
)
def test_refused(make: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()  # type: ignore[operator]
