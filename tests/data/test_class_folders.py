"""Which folders are classes, of which part, and what they are called."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from metakd.data.image_folder import ImageFolder
from metakd.data.images import ImageData
from metakd.data.load import load_dataset
from metakd.errors import UserError
from metakd.task_spec import TaskSpec

CLASSES = ("ant", "bee", "cat", "dog", "elk")


def paint(folder: Path, value: int = 9, count: int = 3) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.fromarray(np.full((8, 8, 3), value + i, dtype=np.uint8)).save(folder / f"{i}.png")


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    """Five classes side by side."""
    for i, name in enumerate(CLASSES):
        paint(tmp_path / "mine" / name, 40 * i)
    return tmp_path / "mine"


@pytest.fixture
def parted(tmp_path: Path) -> Path:
    """Five classes in folders of parts."""
    for name, part in zip(CLASSES, ("train", "train", "val", "test", "test"), strict=True):
        paint(tmp_path / "parted" / part / name, 40 * CLASSES.index(name))
    return tmp_path / "parted"


def dataset(folder: Path, **settings) -> ImageFolder:
    return ImageFolder(Path("unused"), folder=str(folder), image_size=8, **settings)


def names(folder: Path, **settings) -> list[tuple[str, ...]]:
    return [p.class_names for p in dataset(folder, **settings).load().splits.values()]


def recorded(folder: Path, split: dict[str, list[str]]) -> ImageFolder:
    found = dataset(folder)
    found.recorded_split = split
    return found


SPLIT = {"train": ["elk", "ant"], "validate": ["dog"], "test": ["cat"]}


@pytest.mark.parametrize("layout", ["beside", "parted"])
def test_a_recorded_split_is_taken_whatever_else_is_there(
    layout: str, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(layout)
    before = recorded(folder, SPLIT).load()
    assert [p.class_names for p in before.splits.values()] == [("elk", "ant"), ("dog",), ("cat",)]
    assert before.splits["test"].examples[0, 0, 0, 0] == 80
    paint(folder / ("" if layout == "beside" else "train") / "fox", 200)
    (folder / ("" if layout == "beside" else "test") / "empty").mkdir()
    after = recorded(folder, SPLIT).load()
    for part, images in before.splits.items():
        assert images.class_names == after.splits[part].class_names
        assert images.examples.equal(after.splits[part].examples)
        assert images.held_out.equal(after.splits[part].held_out)


def test_a_recorded_class_that_is_gone_is_named(beside: Path) -> None:
    (beside / "dog").rename(beside / "dogs")
    with pytest.raises(UserError, match=r"no class folder 'dog'.*'validate'.*mean 'dogs'"):
        recorded(beside, SPLIT).cache_key()


def test_a_recorded_split_decides_the_cache_key(beside: Path) -> None:
    other = {**SPLIT, "validate": ["bee"]}
    keys = {recorded(beside, split).cache_key() for split in (SPLIT, other)}
    assert len(keys) == 2
    own = dataset(beside)
    key = own.cache_key()
    split = {p: list(i.class_names) for p, i in own.load().splits.items()}
    assert recorded(beside, split).cache_key() == key


@pytest.mark.parametrize("layout", ["beside", "parted"])
def test_all_classes_can_be_test_classes(layout: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(layout)
    assert names(folder, all_test=True) == [(), (), CLASSES]


def test_two_new_classes_are_enough_to_be_evaluated_on(tmp_path: Path) -> None:
    paint(tmp_path / "ant")
    paint(tmp_path / "bee", 100)
    with pytest.raises(UserError, match=r"2 classes.*at least 3.*all_test=true"):
        names(tmp_path)
    assert names(tmp_path, all_test=True) == [(), (), ("ant", "bee")]


def test_all_test_beside_lists_or_of_another_kind_is_refused(beside: Path) -> None:
    with pytest.raises(UserError, match=r"all_test=true.*dataset.splits=x.json.*one of the two"):
        dataset(beside, all_test=True, splits="x.json")
    with pytest.raises(UserError, match=r"all_test=5: type true or false"):
        dataset(beside, all_test=5)


def test_parts_without_classes_are_kept_and_read_from_the_cache(
    beside: Path, tmp_path: Path
) -> None:
    lists = tmp_path / "lists.json"
    lists.write_text(json.dumps({"train": ["ant", "bee"], "test": ["cat"]}))
    for _ in range(2):
        data = load_dataset(dataset(beside, splits=str(lists)), cache_root=tmp_path / "cache")
        assert isinstance(data, ImageData)
        empty = data.split("validate")
        assert (len(empty), empty.classes) == (0, 0)
        assert [len(m) for m in empty.members] == [0, 0]
        with pytest.raises(UserError, match=r"image_folder: the split 'validate' holds no classes"):
            data.tasks("validate", TaskSpec(1, 1, 1), tasks=1, seed=0, stage="x")
        with pytest.raises(UserError, match="the split 'validate' holds no classes"):
            data.batches("validate", batch_size=2, seed=0, stage="x")
        target = data.target("all", None, 0)
        assert target.train.class_names == ("ant", "bee", "cat")
        assert target.train.labels.dtype == torch.int64
        assert len(target.train) + len(target.test) == 9
        assert data.without_held_out().split("validate").classes == 0
    assert len(list((tmp_path / "cache" / "prepared").iterdir())) == 1


def test_statistics_of_an_empty_part_are_refused(beside: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the split 'train' holds no classes.*dataset.splits"):
        load_dataset(dataset(beside, all_test=True), cache_root=tmp_path / "cache")


def test_fine_tuning_on_no_new_classes_is_refused(beside: Path, tmp_path: Path) -> None:
    lists = tmp_path / "lists.json"
    lists.write_text(json.dumps({"train": ["ant", "bee"], "val": ["cat"]}))
    data = load_dataset(dataset(beside, splits=str(lists)), cache_root=tmp_path / "cache")
    assert isinstance(data, ImageData)
    with pytest.raises(UserError, match=r"finetune.target=novel: the split 'test'"):
        data.target("novel", None, 0)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (["test"], [(), (), ("ant",)]),
        (["val", "test"], [(), ("ant",), ("bee",)]),
        (["train", "test"], [("ant",), (), ("bee",)]),
        (["Train", "valid"], [("ant",), ("bee",), ()]),
    ],
)
def test_folders_of_parts_may_be_missing(
    tmp_path: Path, parts: list[str], expected: list[tuple[str, ...]]
) -> None:
    for part, name in zip(parts, CLASSES, strict=False):
        paint(tmp_path / part / name)
    assert names(tmp_path) == expected


def test_classes_that_are_called_as_parts_are(tmp_path: Path) -> None:
    for i, name in enumerate(("train", "tram", "val", "valid")):
        paint(tmp_path / name, 40 * i)
    assert sorted(n for part in names(tmp_path) for n in part) == ["train", "tram", "val", "valid"]


def test_two_folders_of_one_part_are_refused(parted: Path) -> None:
    paint(parted / "valid" / "fox")
    with pytest.raises(UserError, match=r"holds 'val' and 'valid'.*'validate': keep one"):
        names(parted)


def test_lists_beside_folders_of_parts_are_refused(parted: Path, tmp_path: Path) -> None:
    lists = tmp_path / "lists.json"
    lists.write_text(json.dumps({"train": ["nonsense"], "val": [], "test": ["gibberish"]}))
    with pytest.raises(UserError, match=r"dataset.splits=.*lists.json: .*parted is split already"):
        dataset(parted, splits=str(lists)).cache_key()


ODD = {
    "cost $5 and $6": "cost $5 and $6",
    "cafe\u0301": "caf\u00e9",
    "caf\udce9": "caf\\xe9",  # the byte E9, which is no UTF-8
    "two\nlines": "two\\nlines",
    "$\\frac{": "$\\frac{",
}


@pytest.mark.parametrize("folder", ODD)
def test_names_of_classes_can_be_printed_and_written(folder: str, tmp_path: Path) -> None:
    paint(tmp_path / "mine" / folder)
    for name in ("ant", "bee"):
        paint(tmp_path / "mine" / name)
    lists = tmp_path / "lists.json"
    lists.write_text(json.dumps({"train": ["ant"], "val": ["bee"], "test": [ODD[folder]]}))
    found = names(tmp_path / "mine", splits=str(lists))
    assert found == [("ant",), ("bee",), (ODD[folder],)]
    json.dumps(found, ensure_ascii=False).encode("utf-8")
    assert "\n" not in found[2][0]


def test_two_folders_of_one_name_are_refused(beside: Path) -> None:
    paint(beside / "caf\u00e9")
    paint(beside / "cafe\u0301")
    with pytest.raises(UserError, match=r"'cafe\\u0301' and 'caf\\xe9' .* 'caf\u00e9'.*rename one"):
        names(beside)


def test_the_split_does_not_depend_on_how_accents_are_kept(tmp_path: Path) -> None:
    for place, accent in (("here", "e\u0301"), ("there", "\u00e9")):
        for name in (f"{accent}lan", "ant", "fox", f"caf{accent}", "zebra"):
            paint(tmp_path / place / name)
    assert names(tmp_path / "here") == names(tmp_path / "there")
