from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from metakd.data.class_split import (
    by_class,
    check_classes,
    hold_out,
    matched_classes,
    random_split,
    read_class_lists,
)
from metakd.errors import UserError

NAMES = [f"c{i:02d}" for i in range(50)]


def test_random_split_is_one_and_depends_on_the_seed_alone() -> None:
    split = random_split(NAMES, (30, 5, 15), seed=0)
    assert [len(split[p]) for p in ("train", "validate", "test")] == [30, 5, 15]
    assert sorted(split["train"] + split["validate"] + split["test"]) == NAMES
    assert split == random_split(NAMES[::-1], (30, 5, 15), seed=0)
    assert split != random_split(NAMES, (30, 5, 15), seed=1)
    for sizes in ((30, 5, 16), (30, 5, 14)):
        with pytest.raises(UserError, match=r"sizes 30, 5, 1\d are of .* there are 50"):
            random_split(NAMES, sizes, seed=0)


def test_hold_out_takes_its_share_of_each_class() -> None:
    counts = torch.tensor([1, 2, 3, 10, 100])
    labels = torch.arange(5).repeat_interleave(counts)
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    held = hold_out(labels, seed=0)
    assert torch.bincount(labels[held], minlength=5).tolist() == [0, 1, 1, 2, 20]
    assert held.equal(hold_out(labels, seed=0))
    assert not held.equal(hold_out(labels, seed=1))


def test_by_class_keeps_each_image_with_its_class() -> None:
    labels = torch.tensor([2, 0, 1, 2, 0, 1])
    images = (10 * labels + torch.arange(6)).to(torch.uint8)[:, None, None, None]
    split = {"train": ["two"], "validate": ["zero"], "test": ["one"]}
    prepared = by_class(
        "x",
        images,
        labels,
        ["zero", "one", "two"],
        split,
        groups=[5, 6, 7],
        held_out=torch.tensor([True, False, False, False, True, False]),
    )
    train, validate, test = (prepared.splits[p] for p in ("train", "validate", "test"))
    assert train.examples.flatten().tolist() == [20, 23]
    assert validate.examples.flatten().tolist() == [1, 4]
    assert test.examples.flatten().tolist() == [12, 15]
    assert train.labels.tolist() == [0, 0]
    assert [p.groups.tolist() for p in (train, validate, test)] == [[7], [5], [6]]
    assert train.held_out.tolist() == [True, False]
    assert validate.held_out.tolist() == [False, True]


def test_class_lists(tmp_path: Path) -> None:
    path = tmp_path / "lists.json"
    path.write_text(json.dumps({"train": ["a"], "val": ["b"], "test": ["c"], "note": 1}))
    assert read_class_lists(path) == {"train": ["a"], "validate": ["b"], "test": ["c"]}
    for content in ("not json", "[]", '{"train": ["a"], "test": 3}', '{"test": [true]}'):
        path.write_text(content)
        with pytest.raises(UserError, match=r"class lists .*lists.json"):
            read_class_lists(path)
    with pytest.raises(UserError, match=r"cannot be read"):
        read_class_lists(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        ({"test": ["c"]}, {"train": [], "validate": [], "test": ["c"]}),
        ({"train": [], "test": ["c"]}, {"train": [], "validate": [], "test": ["c"]}),
        ({"train": ["a"], "validate": ["b"]}, {"train": ["a"], "validate": ["b"], "test": []}),
    ],
)
def test_lists_may_leave_out_a_part(tmp_path: Path, lists, expected) -> None:
    path = tmp_path / "lists.json"
    path.write_text(json.dumps(lists))
    assert read_class_lists(path) == expected


def test_a_mistyped_or_doubled_part_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lists.json"
    path.write_text(json.dumps({"trian": ["a"], "val": ["b"], "test": ["c"]}))
    with pytest.raises(UserError, match=r"'trian' is no split.*Did you mean 'train'"):
        read_class_lists(path)
    path.write_text(json.dumps({"train": ["a"], "val": ["b"], "validate": ["d"], "test": ["c"]}))
    with pytest.raises(UserError, match=r"'val' and 'validate' are the same split"):
        read_class_lists(path)


def test_lists_with_a_byte_order_mark_and_line_ends_of_windows(tmp_path: Path) -> None:
    path = tmp_path / "lists.json"
    path.write_bytes(b'\xef\xbb\xbf{\r\n"train": ["a"],\r\n"val": ["b"], "test": ["c"]\r\n}\r\n')
    assert read_class_lists(path) == {"train": ["a"], "validate": ["b"], "test": ["c"]}


COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


@pytest.mark.parametrize("listed", [COMPOSED, DECOMPOSED])
@pytest.mark.parametrize("known", [COMPOSED, DECOMPOSED])
def test_accents_are_matched_however_they_are_written(listed: str, known: str) -> None:
    split = {"train": [listed], "validate": ["a"], "test": ["b"]}
    found = matched_classes(split, [known, "a", "b"], "lists")
    assert found == {"train": [known], "validate": ["a"], "test": ["b"]}


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ({"train": ["cat"], "validate": ["dgo"], "test": ["cow"]}, "Did you mean 'dog'"),
        ({"train": ["cat"], "validate": ["dog"], "test": ["cat"]}, "'cat' stands in 'train' and"),
        ({"train": [], "validate": [], "test": []}, "no class for 'train', 'val' or 'test'"),
    ],
)
def test_wrong_class_lists(split, message) -> None:
    with pytest.raises(UserError, match=message):
        check_classes(split, ["cat", "dog", "cow"], "lists")
