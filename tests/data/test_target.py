from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from metakd.data.class_examples import PreparedData
from metakd.data.images import ImageData
from metakd.errors import UserError


@pytest.fixture
def data(make_images) -> ImageData:
    """Three parts with classes of their own, whose images tell which one they are."""
    parts = {}
    for p, (part, counts) in enumerate(
        {"train": [10, 20], "validate": [15], "test": [10, 30]}.items()
    ):
        images = make_images(counts)
        parts[part] = replace(
            images,
            examples=torch.arange(len(images), dtype=torch.uint8)[:, None, None, None] + 60 * p,
            class_names=tuple(f"{part}{c}" for c in range(len(counts))),
            groups=torch.full((len(counts),), p),
            group_names=("of train", "of validate", "of test"),
        )
    return ImageData(PreparedData(parts, "x"))


def ids(images) -> list[int]:
    return images.examples.flatten().tolist()


def test_novel_is_the_meta_test_classes(data) -> None:
    target = data.target("novel", None, seed=0)
    assert target.train.class_names == target.test.class_names == ("test0", "test1")
    assert target.train.members[1].tolist() == [8, 24]
    assert target.test.members[1].tolist() == [2, 6]
    assert sorted(ids(target.train) + ids(target.test)) == sorted(ids(data.test))
    assert target.test.held_out.all()
    assert target.train.groups.tolist() == [2, 2]


def test_novel_with_some_shots(data) -> None:
    few = data.target("novel", 3, seed=0)
    assert few.train.members[1].tolist() == [3, 3]
    assert not set(ids(few.train)) & set(ids(few.test))
    assert few.test.labels.equal(data.target("novel", None, seed=5).test.labels)
    assert ids(few.train) == ids(data.target("novel", 3, seed=0).train)
    assert ids(few.train) != ids(data.target("novel", 3, seed=1).train)


def test_all_classes_and_nothing_of_its_test_in_the_earlier_stages(data) -> None:
    target = data.target("all", None, seed=0)
    assert target.train.class_names == ("train0", "train1", "validate0", "test0", "test1")
    assert target.test.members[1].tolist() == [2, 4, 3, 2, 6]
    assert target.train.groups.tolist() == [0, 0, 1, 2, 2]
    earlier = data.without_held_out()
    for part in (earlier.train, earlier.validate):
        assert not set(ids(part)) & set(ids(target.test))


def test_parts_that_share_their_classes(make_images) -> None:
    learned = replace(make_images([5, 5]), held_out=torch.zeros(10, dtype=torch.bool))
    evaluated = replace(make_images([4, 3]), held_out=torch.ones(7, dtype=torch.bool))
    parts = {"train": learned, "validate": learned, "test": evaluated}
    data = ImageData(PreparedData(parts, "x"))
    for which in ("novel", "all"):
        target = data.target(which, None, seed=0)
        assert target.train.classes == 2
        assert target.train.members[1].tolist() == [10, 10]
        assert target.test.members[1].tolist() == [4, 3]


def test_what_cannot_be_done(data) -> None:
    with pytest.raises(UserError, match=r"class 'test0' has 8 training examples, 9 are needed"):
        data.target("novel", 9, seed=0)
    with pytest.raises(UserError, match=r"target=novell: expected one of .*Did you mean 'novel'"):
        data.target("novell", None, seed=0)
    with pytest.raises(UserError, match=r"shots=0"):
        data.target("novel", 0, seed=0)
