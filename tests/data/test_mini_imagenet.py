from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metakd.data.mini_imagenet import MiniImagenet
from metakd.errors import UserError

CLASSES = {"train": ("n01", "n02"), "val": ("n03",), "test": ("n04",)}


def write(folder: Path, lists: Path, prefix: str = "") -> None:
    """Three pictures a class; their grey tells the class."""
    folder.mkdir(parents=True)
    lists.mkdir(parents=True, exist_ok=True)
    for part, classes in CLASSES.items():
        rows = ["filename,label"]
        for name in classes:
            for i in range(3):
                value = 50 * int(name[1:])
                file = f"{name}{i:08d}.png"
                Image.fromarray(np.full((40, 60, 3), value, dtype=np.uint8)).save(folder / file)
                rows.append(f"{file},{name}")
        (lists / f"{prefix}{part}.csv").write_text("\n".join(rows) + "\n")


@pytest.mark.parametrize("inner", [".", "images"])
@pytest.mark.parametrize("where", ["folder", "root", "typed"])
def test_reads_lists_and_pictures_from_where_they_may_lie(
    tmp_path: Path, inner: str, where: str
) -> None:
    folder = tmp_path / "mini_imagenet"
    lists, prefix, typed = {
        "folder": (folder, "", None),
        "root": (tmp_path / "splits", "mini_imagenet_", None),
        "typed": (tmp_path / "typed", "", str(tmp_path / "typed")),
    }[where]
    if inner == "images":
        write(folder / "images", lists, prefix)
    elif where == "folder":
        write(folder, tmp_path / "moved", prefix)
        for path in (tmp_path / "moved").iterdir():
            path.rename(folder / path.name)
    else:
        write(folder, lists, prefix)
    dataset = MiniImagenet(tmp_path, splits=typed)
    assert dataset.cache_key() == dataset.cache_key()
    parts = dataset.load().splits
    assert [p.class_names for p in parts.values()] == [("n01", "n02"), ("n03",), ("n04",)]
    assert parts["train"].examples.shape == (6, 3, 84, 84)
    assert parts["train"].examples[:, 0, 5, 5].tolist() == [50] * 3 + [100] * 3
    assert parts["test"].examples.unique().tolist() == [200]
    assert int(parts["test"].held_out.sum()) == 1


def test_wrong_input_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no folder .*mini_imagenet: put"):
        MiniImagenet(tmp_path).cache_key()
    folder = tmp_path / "mine"
    write(folder, folder / "lists")
    with pytest.raises(UserError, match=r"neither .*mine/train.csv nor .*mini_imagenet_train.csv"):
        MiniImagenet(tmp_path, folder=str(folder)).load()
    dataset = MiniImagenet(tmp_path, folder=str(folder), splits=str(folder / "lists"))
    (folder / "n0300000001.png").unlink()
    with pytest.raises(UserError, match=r"n0300000001.png, named in .*val.csv, is not there"):
        dataset.load()
    (folder / "n0300000001.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(UserError, match=r"n0300000001.png cannot be read"):
        dataset.load()
    (folder / "lists" / "test.csv").write_text("file;class\na.png;b\n")
    with pytest.raises(UserError, match=r"test.csv cannot be read.*filename,label"):
        dataset.cache_key()
    (folder / "lists" / "test.csv").write_text("filename,label\n")
    with pytest.raises(UserError, match=r"test.csv names no image"):
        dataset.cache_key()


def test_a_class_in_two_lists_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    write(folder, folder / "lists")
    train, test = folder / "lists" / "train.csv", folder / "lists" / "test.csv"
    test.write_text(train.read_text())
    dataset = MiniImagenet(tmp_path, folder=str(folder), splits=str(folder / "lists"))
    with pytest.raises(UserError, match=r"'n01' stands in 'train' and in 'test'"):
        dataset.load()


def test_lists_of_windows_and_accents(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    write(folder, folder / "lists")
    train, test = folder / "lists" / "train.csv", folder / "lists" / "test.csv"
    rows = train.read_text().replace(",n01", ",caf\u00e9").replace("\n", "\r\n")
    train.write_bytes(b"\xef\xbb\xbf" + rows.encode())
    dataset = MiniImagenet(tmp_path, folder=str(folder), splits=str(folder / "lists"))
    assert dataset.load().splits["train"].class_names == ("caf\u00e9", "n02")
    test.write_text(test.read_text().replace(",n04", ",cafe\u0301"), encoding="utf-8")
    with pytest.raises(UserError, match="'caf\u00e9' stands in 'train' and in 'test'"):
        dataset.load()
