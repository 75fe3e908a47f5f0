"""Texts without labels: from which files, and which of them are left out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from metakd.data.load import load_dataset
from metakd.data.text_preprocessing import Bytes, Ngrams
from metakd.data.text_rows import TextRow, prepared_texts
from metakd.data.texts import TextData, unpacked
from metakd.data.unlabelled import Unlabelled, without_labels
from metakd.data.unlabelled_texts import UnlabelledTexts
from metakd.errors import UserError


@pytest.fixture
def data() -> TextData:
    rows = [
        TextRow(f"{verb} {thing}", thing, "made")
        for thing in ("tea", "hat", "dog")
        for verb in ("buy a", "sell the")
    ]
    lists = {"train": ["tea"], "validate": ["hat"], "test": ["dog"]}
    found = TextData(prepared_texts("made", rows, lists), "cpu", ("drop",), 2)
    return found.seen_as(Ngrams(length=24, buckets=99).carrying(Bytes(length=16)))


def read(data: TextData, place: Path, *, anyway: bool = False) -> Unlabelled:
    found = load_dataset(
        UnlabelledTexts(place, data.preprocessing),
        cache_root=place.parent / "cache",
        preprocessing=data.preprocessing,
    )
    assert found.has_classes
    return without_labels(found, data, anyway=anyway)


def test_texts_of_evaluation_classes_are_left_out(data: TextData, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(
        "buy  a tea\nSELL the hat\n\nsome words\nBuy a DOG\nsome words\n"
    )
    (tmp_path / "b.csv").write_text("text,more\none more,1\nsell the hat,2\n")
    (tmp_path / "c.html").write_text("no text\n")
    found, _, held, lines = read(data, tmp_path)
    texts = [versions[0] for versions in unpacked(found.split("train").examples)]
    assert texts == ["buy a tea", "some words", "one more"]
    assert held == 0
    assert lines == (
        "warmstart.unlabelled: 3 of 6 texts are of meta-validation or meta-test classes, and are "
        "left out",
    )
    kept = read(data, tmp_path, anyway=True)
    assert (kept.held, len(kept.data.split("train"))) == (3, 6)
    assert "3 of 6 texts are of meta-validation or meta-test classes; warmstart" in kept.lines[0]
    assert (found.split("train").classes, len(found.split("test"))) == (1, 0)
    alone = read(data, tmp_path / "b.csv").data
    assert len(alone.split("train")) == 1
    assert len({alone.checksum, found.checksum, kept.data.checksum}) == 3


def test_they_are_read_as_the_others_are(data: TextData, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("buy a tea\nx\n")
    found, _, _, lines = read(data, tmp_path / "a.txt")
    assert lines == ()
    text = unpacked(data.split("train").examples).index(["buy a tea"])
    both = [d.examples("train", torch.tensor([i])) for d, i in ((data, text), (found, 0))]
    assert torch.equal(*both)
    assert found.by_size("train").tolist() == [1, 0]


def test_refused(data: TextData, tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "none.txt", Path(__file__)):
        with pytest.raises(UserError, match=r"neither a file of texts \(.txt, .*\) nor a folder"):
            read(data, place)
    (tmp_path / "a.txt").write_text("sell the dog\n")
    with pytest.raises(UserError, match="no texts that may be learned from"):
        read(data, tmp_path / "a.txt")
    (tmp_path / "a.csv").write_text("words\nsome\n")
    with pytest.raises(UserError, match=r"warmstart\.unlabelled"):
        read(data, tmp_path / "a.csv")
