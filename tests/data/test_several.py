"""Several datasets as one: classes side by side, in one colour and size, each a group."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from metakd.data.batches import BatchesInTurn
from metakd.data.class_examples import ClassExamples, PreparedData
from metakd.data.several import Several
from metakd.data.splits import SPLITS
from metakd.errors import UserError


class Made:
    """A dataset of pictures of one grey level each, that of their class."""

    kind = "classification"

    def __init__(self, first: int, counts: tuple[int, ...], channels: int, size: int) -> None:
        self._first, self._counts, self._form = first, counts, (channels, size, size)

    def cache_key(self) -> str | None:
        return f"{self._first}" if self._first else None

    def load(self) -> PreparedData:
        splits, level = {}, self._first
        for split, classes in zip(SPLITS, self._counts, strict=True):
            labels = torch.arange(classes).repeat_interleave(3)
            shape = (3 * classes, *self._form)
            examples = (labels + level)[:, None, None, None].expand(shape).to(torch.uint8)
            names = tuple(f"{split}{c}" for c in range(classes))
            held = torch.arange(3 * classes) % 3 == 2
            groups = torch.arange(classes)
            splits[split] = ClassExamples(examples, labels, names, groups, held)
            level += classes
        return PreparedData(splits, "made", notes=(f"note {self._first}",))


def test_side_by_side(tmp_path: Path) -> None:
    parts = {"grey": Made(10, (2, 1, 1), 1, 6), "colour": Made(100, (3, 1, 2), 3, 9)}
    data = Several(tmp_path, image_size=8, parts=parts).load()
    train = data.splits["train"]
    assert train.examples.shape == (15, 3, 8, 8)
    names = ("grey/train0", "grey/train1", "colour/train0", "colour/train1", "colour/train2")
    assert train.class_names == names
    assert train.groups.tolist() == [0, 0, 1, 1, 1]
    assert train.group_names == ("grey", "colour")
    levels = [10, 11, 100, 101, 102]
    for label, level in enumerate(levels):
        assert (train.examples[train.labels == label] == level).all()
    assert train.held_out.tolist() == [False, False, True] * 5
    assert data.splits["test"].class_names == ("grey/test0", "colour/test0", "colour/test1")
    assert data.notes == ("note 10", "note 100")
    data.check(torch.uint8, 4)


def test_classes_that_another_dataset_learns_from_are_refused(tmp_path: Path) -> None:
    """As of CIFAR-FS and FC100, two splits of the same pictures."""

    class Drawn(Made):
        def load(self) -> PreparedData:
            data = super().load()
            for split, found in data.splits.items():
                pictures = found.examples.clone()
                pictures[:, :, 0] += 1  # a plain one says nothing
                data.splits[split] = replace(found, examples=pictures)
            return data

    one = Drawn(10, (2, 1, 1), 1, 8)  # 10 and 11 are meta-train, 12 and 13 not
    said = r"1 meta-test classes of two \('two/test0' …\) are meta-train pictures of one"
    with pytest.raises(UserError, match=said):
        Several(tmp_path, image_size=8, parts={"one": one, "two": Drawn(7, (2, 1, 1), 1, 8)}).load()
    Several(tmp_path, image_size=8, parts={"one": one, "two": Drawn(14, (2, 1, 1), 1, 8)}).load()


def test_grey_stays_grey(tmp_path: Path) -> None:
    parts = {"a": Made(10, (2, 1, 1), 1, 6), "b": Made(50, (2, 1, 1), 1, 6)}
    several = Several(tmp_path, image_size=6, parts=parts)
    assert several.load().splits["train"].examples.shape[1:] == (1, 6, 6)
    other = Several(tmp_path, image_size=7, parts=parts)
    assert several.cache_key() not in (None, other.cache_key())
    unknown = {**parts, "c": Made(0, (2, 1, 1), 1, 6)}
    assert Several(tmp_path, parts=unknown).cache_key() is None


def test_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="name two datasets or more"):
        Several(tmp_path, parts={"a": Made(1, (1, 1, 1), 1, 6)})

    class Rows(Made):
        def load(self) -> PreparedData:
            found = super().load()
            rows = {
                name: ClassExamples(
                    split.examples.flatten(1).double(),
                    split.labels,
                    split.class_names,
                    split.groups,
                    split.held_out,
                )
                for name, split in found.splits.items()
            }
            return PreparedData(rows, "rows")

    parts = {"a": Made(1, (1, 1, 1), 1, 6), "b": Rows(2, (1, 1, 1), 1, 6)}
    with pytest.raises(UserError, match="dataset b holds no pictures"):
        Several(tmp_path, parts=parts).load()


def test_streams_in_turn() -> None:
    class Stream:
        def __init__(self, name: str) -> None:
            self.name = name

        def batch(self, step: int) -> str:
            return f"{self.name}{step}"

    turns = BatchesInTurn([Stream("a"), Stream("b"), Stream("c")])  # type: ignore[list-item]
    assert [turns.batch(i) for i in range(7)] == ["a0", "b0", "c0", "a1", "b1", "c1", "a2"]
