"""What of a folder is not used is said, once for each kind, with a count and examples."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metakd.data.image_folder import ImageFolder
from metakd.data.load import load_dataset
from metakd.errors import UserError

CLASSES = ("ant", "bee", "cat")


def paint(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(zlib.crc32(bytes(path))).integers(0, 256, (4, 4, 3), np.uint8)
    Image.fromarray(noise).save(path)


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    for name in CLASSES:
        paint(tmp_path / "mine" / name / "1.png")
        paint(tmp_path / "mine" / name / "22.png")
    return tmp_path / "mine"


@pytest.fixture
def parted(tmp_path: Path) -> Path:
    for part, name in zip(("train", "val", "test"), CLASSES, strict=True):
        paint(tmp_path / "parted" / part / name / "1.png")
        paint(tmp_path / "parted" / part / name / "22.png")
    return tmp_path / "parted"


def notes(folder: Path, **settings) -> tuple[str, ...]:
    dataset = ImageFolder(Path("unused"), folder=str(folder), image_size=4, **settings)
    return dataset.load().notes


def test_nothing_is_said_where_all_is_used(beside: Path, parted: Path) -> None:
    (beside / "notes.txt").touch()
    (beside / "ant" / "notes.txt").touch()
    (beside / "ant" / "._1.png").write_bytes(b"left by a Mac")
    for name in ("__MACOSX", ".git", "@eaDir", "ant/@eaDir", "ant/.thumbs"):
        paint(beside / name / "ant" / "1.png")
    assert notes(beside) == ()
    assert notes(parted) == ()


def test_pictures_in_subfolders(beside: Path) -> None:
    for name in ("b/1.png", "b/c/2.png", "a/9.png", "a/8.png"):
        paint(beside / "ant" / name)
    (beside / "ant" / "a" / "notes.txt").touch()
    (line,) = notes(beside)
    assert line.startswith("dataset image_folder: 4 pictures in subfolders of class folders left")
    assert "(ant/a/8.png, ant/a/9.png, ant/b/1.png, …)" in line


def test_files_of_kinds_that_are_not_read(beside: Path) -> None:
    for name in ("ant/1.CR2", "bee/2", "bee/3.psd"):
        (beside / name).write_bytes(b"something")
    for name in ("ant/list.csv", "ant/Thumbs.db", "ant/desktop.ini", "ant/.hidden"):
        (beside / name).touch()
    (line,) = notes(beside)
    assert line.startswith("dataset image_folder: 3 files of other kinds in class folders left out")
    assert all(name in line for name in ("ant/1.CR2", "bee/2", "bee/3.psd"))
    (beside / "dog").mkdir()
    (beside / "dog" / "1.psd").touch()
    with pytest.raises(UserError, match=r"dog holds no image.*'1.psd' is of no kind that is read"):
        notes(beside)


def test_a_class_of_subfolders_alone_is_refused(beside: Path) -> None:
    paint(beside / "dog" / "big" / "1.png")
    with pytest.raises(UserError, match=r"dog holds no image.*dog/big/1.png' and others lie too"):
        notes(beside)


@pytest.mark.parametrize("target", ["gone.png", "2.png"])
def test_links_that_lead_nowhere(beside: Path, target: str) -> None:
    (beside / "bee" / "2.png").symlink_to(target)  # to nothing, and to itself
    (beside / "dog").symlink_to("gone", target_is_directory=True)
    (beside / "bee" / "3.png").symlink_to(beside / "bee" / "1.png")  # a good one
    line, again = notes(beside)
    assert "1 picture equals another of the class" in again
    assert line.startswith("dataset image_folder: 2 links to nothing left out (dog, bee/2.png)")


def test_classes_and_pictures_beside_the_parts(parted: Path) -> None:
    paint(parted / "elk" / "1.png")
    paint(parted / "fox" / "1.png")
    (parted / "docs").mkdir()
    paint(parted / "1.png")
    paint(parted / "train" / "2.png")
    classes, pictures = notes(parted)
    assert classes.startswith("dataset image_folder: 2 class folders left out (elk, fox)")
    assert "2 pictures beside the class folders left out (1.png, train/2.png)" in pictures


def test_classes_that_no_list_names(beside: Path, tmp_path: Path) -> None:
    paint(beside / "dog" / "1.png")
    lists = tmp_path / "lists.json"
    lists.write_text(json.dumps({"train": ["ant"], "val": ["bee"], "test": ["cat"]}))
    (line,) = notes(beside, splits=str(lists))
    assert "1 class folder left out (dog)" in line


def test_pictures_of_parts_without_class_folders_are_refused(tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        paint(tmp_path / part / "1.png")
    with pytest.raises(UserError, match=r"train holds pictures and no class folders"):
        notes(tmp_path)


def test_notes_come_from_the_cache_and_follow_the_folder(beside: Path, tmp_path: Path) -> None:
    def kept() -> tuple[str, ...]:
        dataset = ImageFolder(Path("unused"), folder=str(beside), image_size=4)
        return load_dataset(dataset, cache_root=tmp_path / "cache").prepared.notes

    paint(beside / "ant" / "old" / "1.png")
    first = kept()
    assert len(first) == 1
    assert kept() == first
    paint(beside / "ant" / "old" / "2.png")
    assert "2 pictures" in kept()[0]
