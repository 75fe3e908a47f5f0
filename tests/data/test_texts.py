"""Texts of a dataset: kept, read, augmented, put into tasks; for one reader and for two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

import pytest
import torch

from metakd.data.class_examples import PreparedData
from metakd.data.text_augment import augment_texts
from metakd.data.text_preprocessing import Ngrams, TextPreprocessing
from metakd.data.text_rows import TextRow, prepared_texts
from metakd.data.texts import TextData, packed, unpacked
from metakd.data.tokens import Tokens
from metakd.task_spec import TaskSpec

WORDS = {"fly": "book a flight to", "pay": "pay the bill of", "eat": "a table for two at"}
READS = Ngrams(length=160, buckets=500)


def prepared(**settings: object) -> PreparedData:
    names = [f"{kind}{i}" for i in range(3) for kind in WORDS]
    rows = [
        TextRow(f"{WORDS[name[:3]]} {name} {place} " + "very " * (i % 7) + "soon", name, "made")
        for name in names
        for i, place in enumerate("abcdefgh")
    ]
    lists = {"train": names[:5], "validate": names[5:7], "test": names[7:]}
    return prepared_texts("made", rows, lists, **settings)  # type: ignore[arg-type]


def read(
    reads: TextPreprocessing = READS, augment: tuple[str, ...] = (), views: int = 1
) -> TextData:
    data = TextData(prepared(), "cpu", augment, views)
    return data.seen_as(data.reading_of(reads))


def texts_of(data: TextData, split: str = "train") -> list[str]:
    return [versions[0] for versions in unpacked(data.split(split).examples)]


def test_packing() -> None:
    versions = [["añ", "b"], ["☂" * 9]]
    kept = packed(versions)
    assert (kept.shape, kept.dtype) == ((2, 2, 27), torch.uint8)
    assert unpacked(kept) == versions
    assert unpacked(packed([])) == []


def test_read_as_bytes_until_a_network_says_what_it_reads() -> None:
    data = TextData(prepared())
    seen = data.examples("train", torch.tensor([[3]]))
    assert bytes((seen[0, 0][seen[0, 0] > 0] - 1).tolist()).decode() == texts_of(data)[3]
    assert data.preprocessing.reads == "bytes"


def test_a_batch_is_read_and_cut() -> None:
    data = read()
    assert data.example_shape == (160,)
    texts = texts_of(data)
    index = torch.tensor([[4, 0], [9, 11]])
    seen = data.examples("train", index)
    assert seen.dtype == torch.int64
    assert 0 < seen.shape[-1] <= 160
    expected = READS.encode([texts[i] for i in index.flatten().tolist()])
    assert torch.equal(seen.flatten(0, 1), expected[:, : seen.shape[-1]].long())
    assert not expected[:, seen.shape[-1] :].any()
    assert torch.equal(data.as_seen(data.train.examples[index[0]]), seen[0])


def test_a_vocabulary_is_learned_from_meta_train_texts_that_are_not_held_out() -> None:
    given: list[str] = []

    class Learner(Ngrams):
        def fitted(self, texts: Sequence[str], cache_root: Path | None = None) -> Self:
            given.extend(texts)
            return self

    data = TextData(prepared())
    data.reading_of(Learner(length=160, buckets=500))
    out = data.train.held_out.tolist()
    assert given == [t for t, held in zip(texts_of(data), out, strict=True) if not held]
    assert 0 < len(given) < len(out)


def test_fixed_views_are_functions_of_position_and_view() -> None:
    data = read(augment=("drop", "swap"), views=4)
    index = torch.tensor([2, 7, 2])
    view = torch.tensor([3, 0, 1])
    seen = data.examples("train", index, view)
    texts = texts_of(data)
    changed = []
    for i, v, key in zip(index.tolist(), view.tolist(), data.keys_of(index, view), strict=True):
        changed += augment_texts([[texts[i]]], key[None], data.augment) if v else [texts[i]]
    assert torch.equal(seen, READS.encode(changed)[:, : seen.shape[1]].long())
    assert changed[0] != changed[2] or texts[2] in changed
    # The base class's way, which reads them one by one, says the same.
    again = super(TextData, data).examples("train", index, view)
    width = min(seen.shape[1], again.shape[1])
    assert torch.equal(seen[:, :width], again[:, :width])


def test_fresh_views_are_functions_of_the_key() -> None:
    data = read(augment=("drop",), views=0)
    index = torch.arange(20)
    first, again, other = (data.fresh_examples("train", index, key) for key in (1, 1, 2))
    assert torch.equal(first, again)
    assert first.shape != other.shape or not torch.equal(first, other)


def test_support_and_query_of_tasks_have_one_shape_and_share_no_text() -> None:
    data = read()
    stream = data.tasks("train", TaskSpec(2, 1, 1), tasks=1, seed=0, stage="t")
    widths = set()
    for step in range(6):
        batch = stream.batch(step)
        assert batch.support.shape[-1] == batch.query.shape[-1]
        widths.add(batch.query.shape[-1])
        assert batch.support_index is not None
        assert torch.equal(
            batch.support[batch.support > 0],
            (found := data.examples("train", batch.support_index))[found > 0],
        )
    assert len(widths) > 1


def test_shown_to_the_teacher_alone() -> None:
    """What an embedding is kept of is the teacher's own ids of the student's view."""
    data = read(augment=("drop", "swap"), views=3)
    fitted = data.reading_of(Tokens(length=24, size=300))
    both = data.carrying(fitted)
    shown, index, view = both.shown_to(fitted), torch.arange(4), torch.tensor([0, 1, 2, 1])
    for given in ((index, None), (index, view)):
        found = shown.examples("train", *given)
        together = fitted.converted(both.examples("train", *given), both.preprocessing)
        assert found.shape[1] <= 24
        assert torch.equal(found, together[:, : found.shape[1]])
        assert not together[:, found.shape[1] :].any()
    assert not torch.equal(shown.examples("train", index, view), shown.examples("train", index))
    assert data.shown_to(READS) is data


@pytest.mark.parametrize("views", [0, 1, 3])
def test_both_networks_see_the_same_text(views: int) -> None:
    """Examples for two readers hold what each of them alone would be given, in every view."""
    other = Tokens(length=24, size=300)
    alone = read(augment=("drop", "swap"), views=views)
    fitted = alone.reading_of(other)
    second = alone.seen_as(fitted)
    both = alone.carrying(fitted)
    assert both.preprocessing == alone.preprocessing
    assert both.example_shape[0] >= 160 + 24
    spec = TaskSpec(2, 2, 3)
    streams = [
        data.tasks("train", spec, tasks=2, seed=0, stage="t", augmented=True)
        for data in (both, alone, second)
    ]
    for step in range(4):
        together, one, two = (stream.batch(step) for stream in streams)
        for side in ("support", "query"):
            given = getattr(together, side)
            own = READS.converted(given, both.preprocessing)
            assert torch.equal(own, getattr(one, side))  # to the width: the twin's very bits
            found, expected = fitted.converted(given, both.preprocessing), getattr(two, side)
            width = min(found.shape[-1], expected.shape[-1])
            assert torch.equal(found[..., :width], expected[..., :width])
            assert not found[..., width:].any()
            assert not expected[..., width:].any()
    left = both.without_classes("train", ["fly0"])
    assert left.example_shape == both.example_shape


def test_what_is_kept_is_checked() -> None:
    data = prepared()
    damaged = data.splits["test"].examples.clone()
    damaged[1] = 0
    broken = replace(data.splits["test"], examples=damaged)
    with pytest.raises(ValueError, match="test: an empty text"):
        TextData.check(replace(data, splits={**data.splits, "test": broken}))


def test_paraphrases_are_for_training_alone() -> None:
    kept = prepared(paraphrases={"pay the bill of pay0 a soon": ["settle up", "pay up"]})
    data = TextData(kept, "cpu", ("paraphrase",), 30)
    data = data.seen_as(data.reading_of(READS))
    place = texts_of(data).index("pay the bill of pay0 a soon")
    index, views = torch.full((30,), place), torch.arange(30)
    seen = {tuple(row[row > 0].tolist()) for row in data.examples("train", index, views)}
    texts = ["pay the bill of pay0 a soon", "settle up", "pay up"]
    assert seen == {tuple(row[row > 0].tolist()) for row in READS.encode(texts)}
    clean = data.examples("train", torch.tensor([place]))[0]
    assert clean[clean > 0].tolist() == [i for i in READS.encode(texts[:1])[0].tolist() if i]
