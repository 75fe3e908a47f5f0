from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from metakd.data.class_split import (
    by_class,
    check_classes,
    hold_out,
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
    train, validate, test = (prepared.parts[p] for p in ("train", "validate", "test"))
    assert train.images.flatten().tolist() == [20, 23]
    assert validate.images.flatten().tolist() == [1, 4]
    assert test.images.flatten().tolist() == [12, 15]
    assert train.labels.tolist() == [0, 0]
    assert [p.groups.tolist() for p in (train, validate, test)] == [[7], [5], [6]]
    assert train.held_out.tolist() == [True, False]
    assert validate.held_out.tolist() == [False, True]


def test_class_lists(tmp_path: Path) -> None:
    path = tmp_path / "lists.json"
    path.write_text(json.dumps({"train": ["a"], "val": ["b"], "test": ["c"], "note": 1}))
    assert read_class_lists(path) == {"train": ["a"], "validate": ["b"], "test": ["c"]}
    for content in ("not json", "[]", '{"train": ["a"], "test": ["b"]}', '{"train": 3}'):
        path.write_text(content)
        with pytest.raises(UserError, match=r"class lists .*lists.json"):
            read_class_lists(path)
    with pytest.raises(UserError, match=r"cannot be read"):
        read_class_lists(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ({"train": ["cat"], "validate": ["dgo"], "test": ["cow"]}, "Did you mean 'dog'"),
        ({"train": ["cat"], "validate": ["dog"], "test": ["cat"]}, "'cat' stands in 'train' and"),
        ({"train": ["cat"], "validate": [], "test": ["cow"]}, "no class for 'validate'"),
    ],
)
def test_wrong_class_lists(split, message) -> None:
    with pytest.raises(UserError, match=message):
        check_classes(split, ["cat", "dog", "cow"], "lists")
