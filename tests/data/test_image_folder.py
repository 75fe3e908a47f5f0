from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metakd.data.image_folder import ImageFolder
from metakd.data.load import load_dataset
from metakd.errors import UserError
from metakd.task_spec import TaskSpec

COLOURS = {"ant": 10, "bee": 60, "cat": 110, "dog": 160, "elk": 210}


def paint(path: Path, value: int, width: int = 30, height: int = 20, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((height, width, 3), value, dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, value in COLOURS.items():
        for i in range(6):
            paint(tmp_path / "mine" / name / f"{i}.png", value + i)
    return tmp_path / "mine"


def load(folder: Path, **settings):
    return ImageFolder(Path("unused"), folder=str(folder), **settings).load().splits


def test_split_by_seed(folder: Path) -> None:
    parts = load(folder, image_size=16)
    assert [p.classes for p in parts.values()] == [3, 1, 1]
    assert sorted(n for p in parts.values() for n in p.class_names) == sorted(COLOURS)
    for part in parts.values():
        assert part.examples.shape[1:] == (3, 16, 16)
        for image, label in zip(part.examples, part.labels.tolist(), strict=True):
            assert 0 <= int(image[0, 8, 8]) - COLOURS[part.class_names[label]] < 6
    seeds = {load(folder, split_seed=s)["test"].class_names for s in range(8)}
    assert len(seeds) > 1


def test_the_same_classes_in_all_splits_are_a_whole_dataset(tmp_path: Path) -> None:
    for i, split in enumerate(("train", "test")):
        paint(tmp_path / split / "ant" / "0.png", 10 * i)
    with pytest.raises(UserError, match=r"'ant' stands in 'train' and in 'test'.*task=classes"):
        load(tmp_path)


def test_classes_that_may_be_one_are_said(tmp_path: Path) -> None:
    for split, name in (("train", "Ant"), ("train", "bee"), ("val", "cat"), ("test", "ant")):
        for i in range(2):
            paint(tmp_path / split / name / f"{i}.png", 10 * len(split) + len(name) + 3 * i)
    notes = ImageFolder(Path("unused"), folder=str(tmp_path)).load().notes
    assert any("the classes 'Ant', 'ant' differ in capital letters or blanks" in n for n in notes)


def test_split_by_lists(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "lists.json"
    path.write_text(json.dumps({"train": ["elk"], "val": ["bee"], "test": ["ant", "cat"]}))
    parts = load(folder, splits=str(path))
    names = [p.class_names for p in parts.values()]
    assert names == [("elk",), ("bee",), ("ant", "cat")]  # dog is left out
    path.write_text(json.dumps({"train": ["elk", "elk"], "val": ["bee"], "test": ["ant"]}))
    with pytest.raises(UserError, match="class 'elk' stands in 'train' twice: keep one"):
        load(folder, splits=str(path))
    path.write_text(json.dumps({"train": ["elk"], "val": ["bee"], "test": ["antt"]}))
    with pytest.raises(UserError, match=r"lists.json.*'antt'.*Did you mean 'ant'"):
        load(folder, splits=str(path))


def test_split_by_folders(tmp_path: Path) -> None:
    for part, name in (("train", "ant"), ("train", "bee"), ("val", "cat"), ("test", "dog")):
        paint(tmp_path / part / name / "1.png", 9)
        paint(tmp_path / part / name / "2.png", 9)
    names = [p.class_names for p in load(tmp_path).values()]
    assert names == [("ant", "bee"), ("cat",), ("dog",)]
    paint(tmp_path / "test" / "ant" / "1.png", 9)
    with pytest.raises(UserError, match=r"'ant' stands in 'train' and in 'test'"):
        load(tmp_path)


def test_any_mode_and_shape_and_other_files(folder: Path) -> None:
    paint(folder / "ant" / "grey.png", 10, mode="L")
    paint(folder / "ant" / "palette.gif", 10, mode="P")
    paint(folder / "ant" / "alpha.PNG", 10, mode="RGBA")
    paint(folder / "ant" / "tall.bmp", 10, width=10, height=90)
    (folder / "ant" / "notes.txt").write_text("not an image")
    (folder / "ant" / ".hidden.png").write_text("not an image")
    (folder / ".git").mkdir()
    (folder / "README.md").touch()
    parts = load(folder, image_size=8)
    (counts,) = (
        [p.members[1].tolist()[p.class_names.index("ant")]]
        for p in parts.values()
        if "ant" in p.class_names
    )
    assert counts == [10]


def test_the_middle_square_is_kept(folder: Path) -> None:
    pixels = np.zeros((20, 60, 3), dtype=np.uint8)
    pixels[:, 20:40] = 255
    for name in COLOURS:
        Image.fromarray(pixels).save(folder / name / "0.png")
    image = load(folder, image_size=20)["train"].examples[0]
    assert int(image.min()) == 255


def test_a_corrupt_image_is_named(folder: Path) -> None:
    broken = folder / "cat" / "3.png"
    broken.write_bytes(broken.read_bytes()[:50])
    with pytest.raises(UserError, match=r"cat/3.png cannot be read") as info:
        load(folder)
    assert "\n" not in str(info.value)
    broken.write_bytes(b"")
    with pytest.raises(UserError, match=r"cat/3.png cannot be read"):
        load(folder)


def test_an_empty_class_folder_is_named_before_anything_is_read(folder: Path) -> None:
    (folder / "ant" / "0.png").write_bytes(b"broken, too")
    (folder / "fox").mkdir()
    (folder / "fox" / "notes.txt").touch()
    with pytest.raises(UserError, match=r"class folder .*/fox holds no image"):
        ImageFolder(Path("unused"), folder=str(folder)).cache_key()


def test_a_class_with_too_few_images_is_named(folder: Path, tmp_path: Path) -> None:
    for i in range(1, 6):
        (folder / "bee" / f"{i}.png").unlink()
    dataset = ImageFolder(Path("unused"), folder=str(folder), image_size=8)
    data = load_dataset(dataset, cache_root=tmp_path / "cache")
    part = next(p for p in ("train", "validate", "test") if "bee" in data.split(p).class_names)
    with pytest.raises(UserError, match=r"class 'bee' has 1 examples"):
        data.tasks(part, TaskSpec(1, 1, 1), tasks=1, seed=0, stage="x")


def test_a_split_of_one_class_is_no_one_way_task(folder: Path, tmp_path: Path) -> None:
    dataset = ImageFolder(Path("unused"), folder=str(folder), image_size=8)
    data = load_dataset(dataset, cache_root=tmp_path / "cache")
    with pytest.raises(UserError, match=r"1 of your 5 classes .*: name more for it by dataset.spl"):
        data.tasks("test", TaskSpec(2, 1, 1), tasks=1, seed=0, stage="x")


def test_missing_folder_and_too_few_classes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no folder .*nowhere.*dataset.folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"no folder .*data/image_folder"):
        ImageFolder(tmp_path / "data").cache_key()
    (tmp_path / "mine").mkdir()
    with pytest.raises(UserError, match="mine holds no class folder: put the pictures of each"):
        load(tmp_path / "mine")
    paint(tmp_path / "mine" / "1.png", 9)
    with pytest.raises(UserError, match="mine holds pictures and no class folder"):
        load(tmp_path / "mine", all_test=True)
    paint(tmp_path / "mine" / "ant" / "1.png", 9)
    with pytest.raises(UserError, match=r"holds 1 classes.*at least 3"):
        load(tmp_path / "mine")


def test_prepared_data_follows_the_files(folder: Path, tmp_path: Path) -> None:
    def checksum() -> str:
        dataset = ImageFolder(Path("unused"), folder=str(folder), image_size=8)
        return load_dataset(dataset, cache_root=tmp_path / "cache").checksum

    before = checksum()
    assert before == checksum()
    paint(folder / "ant" / "new.png", 1)
    added = checksum()
    paint(folder / "ant" / "new.png", 2)
    assert len({before, added, checksum()}) == 3
