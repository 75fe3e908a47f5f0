"""A dataset as one task of all its classes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from metakd.data.class_examples import ClassExamples, PreparedData
from metakd.data.image_folder import ImageFolder
from metakd.data.images import ImageData
from metakd.data.load import load_dataset
from metakd.data.splits import SPLITS
from metakd.data.whole import as_whole
from metakd.errors import UserError

EACH = 20


def part(names: str, seed: int, held: int = 4) -> ClassExamples:
    """Return images of classes named by letters, all pixels of one its own number."""
    labels = torch.arange(len(names)).repeat_interleave(EACH)
    pixels = (torch.arange(len(labels)) + 60 * seed).to(torch.uint8)
    return ClassExamples(
        examples=pixels[:, None, None, None].expand(-1, 1, 2, 2).contiguous(),
        labels=labels,
        class_names=tuple(names),
        groups=torch.zeros(len(names), dtype=torch.int64),
        held_out=torch.arange(len(labels)) % EACH >= EACH - held,
    )


def of_classes(*names: str) -> ImageData:
    parts = {s: part(n, i) for i, (s, n) in enumerate(zip(SPLITS, names, strict=True))}
    return ImageData(PreparedData(parts, "letters"), checksum="one")


def pixels(found: ClassExamples) -> list[int]:
    return found.examples[:, 0, 0, 0].tolist()


def test_all_classes_are_in_every_split_and_no_image_is_in_two() -> None:
    data = as_whole(of_classes("ca", "d", "b"), 0.25, seed=0)
    for split in SPLITS:
        assert data.split(split).class_names == ("a", "b", "c", "d")
    assert len(data.test) == 4 * 4
    assert bool(data.test.held_out.all())
    assert not bool(data.train.held_out.any() | data.validate.held_out.any())
    assert torch.bincount(data.validate.labels).tolist() == [4] * 4  # a quarter of the other 16
    assert torch.bincount(data.train.labels).tolist() == [12] * 4
    seen = [p for split in SPLITS for p in pixels(data.split(split))]
    assert sorted(seen) == list(range(40)) + list(range(60, 80)) + list(range(120, 140))
    # 'a' is the second class of meta-train: images 20 to 39, of which the last four are held out
    assert pixels(data.test)[:4] == [36, 37, 38, 39]


def test_groups_that_each_split_numbers_by_itself_stay_apart() -> None:
    def grouped(names: str, seed: int, *groups: str) -> ClassExamples:
        numbers = torch.arange(len(names)) % len(groups)
        return replace(part(names, seed), groups=numbers, group_names=groups)

    parts = [grouped("ca", 0, "Latin", "Greek"), grouped("d", 1, "Thai"), grouped("b", 2, "Greek")]
    data = ImageData(PreparedData(dict(zip(SPLITS, parts, strict=True)), "letters"), checksum="one")
    train = as_whole(data, 0.25, seed=0).train
    named = [train.group_names[group] for group in train.groups.tolist()]
    assert dict(zip(train.class_names, named, strict=True)) == {
        "a": "Greek",
        "b": "Greek",
        "c": "Latin",
        "d": "Thai",
    }
    assert train.group_names == ("Greek", "Latin", "Thai")


def test_the_class_split_makes_no_difference_and_the_seed_does() -> None:
    images = {"a": part("a", 0), "b": part("b", 1), "c": part("c", 2)}

    def whole(names: str, seed: int) -> ImageData:
        parts = {split: images[name] for split, name in zip(SPLITS, names, strict=True)}
        return as_whole(ImageData(PreparedData(parts, "letters"), checksum="one"), 0.25, seed)

    one, again, other = whole("abc", 0), whole("cab", 0), whole("abc", 1)
    assert pixels(one.validate) == pixels(again.validate)
    assert pixels(one.validate) != pixels(other.validate)
    assert one.checksum == again.checksum != other.checksum != "one"
    assert pixels(one.test) == pixels(other.test)


def test_statistics_are_those_of_the_new_training_images() -> None:
    data = of_classes("a", "b", "c")
    whole = as_whole(data, 0.25, seed=0)
    mean = whole.train.examples.double().mean().item() / 255
    assert whole.preprocessing.mean[0] == pytest.approx(mean)
    assert data.preprocessing.mean[0] != pytest.approx(mean)
    kept = as_whole(data, 0.25, seed=0, measured=False)
    assert kept.preprocessing == data.preprocessing


def test_without_validation_images() -> None:
    data = as_whole(of_classes("a", "b", "c"), 0.0, seed=0)
    assert (len(data.validate), data.validate.classes) == (0, 0)
    assert torch.bincount(data.train.labels).tolist() == [16] * 3


def test_a_class_needs_test_images_and_training_images() -> None:
    parts = {"train": part("ab", 0), "validate": part("", 1), "test": part("c", 2, held=0)}
    with pytest.raises(UserError, match="class 'c' has 0 test examples"):
        as_whole(ImageData(PreparedData(parts, "letters")), 0.1, 0)
    parts["test"] = part("c", 2, held=EACH)
    with pytest.raises(UserError, match="class 'c' has 0 training examples"):
        as_whole(ImageData(PreparedData(parts, "letters")), 0.1, 0)


def paint(folder: Path, grey: int, count: int = 1) -> None:
    folder.mkdir(parents=True)
    for i in range(count):
        pattern = np.full((4, 4, 3), grey, np.uint8)
        pattern[0, 0] = i
        Image.fromarray(pattern).save(folder / f"{i}.png")


def whole_folder(folder: Path, cache: Path, share: float = 0.0) -> ImageData:
    dataset = ImageFolder(folder, folder=str(folder), image_size=4)
    dataset.by_examples = True
    loaded = load_dataset(dataset, cache_root=cache)
    assert isinstance(loaded, ImageData)
    return as_whole(loaded, share, 0)


@pytest.mark.parametrize("held", ["test", "val"])
def test_a_folder_with_train_and_test_pictures_of_the_same_classes(
    tmp_path: Path, held: str
) -> None:
    greys = {"train/elm": 10, "train/oak": 50, f"{held}/elm": 90, f"{held}/oak": 130}
    for name, grey in greys.items():
        paint(tmp_path / "photos" / name, grey, count=3)
    data = whole_folder(tmp_path / "photos", tmp_path / "cache")
    assert data.train.class_names == data.test.class_names == ("elm", "oak")
    last = data.train.examples[:, 0, 3, 3].tolist(), data.test.examples[:, 0, 3, 3].tolist()
    assert last == ([10] * 3 + [50] * 3, [90] * 3 + [130] * 3)
    # and from the cache
    again = whole_folder(tmp_path / "photos", tmp_path / "cache")
    assert torch.equal(again.test.examples, data.test.examples)


def test_val_beside_test_is_for_training_and_said(tmp_path: Path) -> None:
    for split, grey in (("train", 10), ("val", 50), ("test", 90)):
        for name in ("elm", "oak"):
            paint(tmp_path / "photos" / split / name, grey, count=2)
    data = whole_folder(tmp_path / "photos", tmp_path / "cache", share=0.5)
    assert (len(data.train), len(data.validate), len(data.test)) == (4, 4, 4)
    assert any("pictures of 'val' are training pictures" in line for line in data.notes)


def test_class_folders_side_by_side_keep_a_fifth_for_the_test(tmp_path: Path) -> None:
    for name in ("elm", "oak"):  # two are enough: none is meta-validation's or meta-test's
        paint(tmp_path / "photos" / name, 10, count=10)
    data = whole_folder(tmp_path / "photos", tmp_path / "cache")
    assert torch.bincount(data.test.labels).tolist() == [2, 2]


def test_a_class_with_test_pictures_alone_is_refused(tmp_path: Path) -> None:
    for name in ("train/elm", "train/oak", "test/elm", "test/oka"):
        paint(tmp_path / "photos" / name, 10)
    with pytest.raises(UserError, match=r"class 'oka' has test pictures .* Did you mean 'oak'"):
        whole_folder(tmp_path / "photos", tmp_path / "cache")
