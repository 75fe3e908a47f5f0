"""The cache believes contents, not paths, sizes and times."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import metakd.data.sources as sources
from metakd.data.cache import read_checked
from metakd.data.image_folder import ImageFolder
from metakd.data.images import ImageData
from metakd.data.load import load_dataset
from metakd.data.sources import SourceFiles
from metakd.errors import UserError

CLASSES = ("ant", "bee", "cat")
TIME = 1_700_000_000


def project(root: Path, inverted: bool = False) -> Path:
    """A folder of three classes; inverted or not, files have the same names, sizes and times."""
    for c, name in enumerate(CLASSES):
        for i in range(2):
            pixels = np.full((4, 4, 3), 20 * c + i, dtype=np.uint8)
            path = root / "photos" / name / f"{i}.bmp"  # not compressed: of one size
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(255 - pixels if inverted else pixels).save(path)
            os.utime(path, (TIME, TIME))
    return root


def load(folder: str | Path, cache: Path) -> ImageData:
    data = load_dataset(
        ImageFolder(Path("unused"), folder=str(folder), image_size=4), cache_root=cache
    )
    assert isinstance(data, ImageData)
    return data


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts how often pictures are prepared."""
    counted: list[int] = []
    real = ImageFolder.load
    monkeypatch.setattr(ImageFolder, "load", lambda self: (counted.append(1), real(self))[1])
    return counted


def test_two_projects_get_their_own_pictures(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("first", "second"):
        project(tmp_path / name, inverted=name == "second")
    darkest = {}
    for name in ("first", "second", "first", "second"):
        monkeypatch.chdir(tmp_path / name)
        darkest[name] = int(load("photos", cache).train.examples.min())
    assert darkest["first"] < 60
    assert darkest["second"] > 190


def test_a_folder_reached_in_two_ways_is_prepared_once(
    tmp_path: Path, cache: Path, loads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    project(tmp_path / "first")
    (tmp_path / "link").symlink_to(tmp_path / "first")
    monkeypatch.chdir(tmp_path / "first")
    checksums = {
        load(f, cache).checksum for f in ("photos", "../link/photos", tmp_path / "first" / "photos")
    }
    assert len(checksums) == len(loads) == 1


def test_a_file_that_is_written_over_with_its_old_time_is_noticed(
    tmp_path: Path, cache: Path
) -> None:
    project(tmp_path)
    before = load(tmp_path / "photos", cache).checksum
    for path in (tmp_path / "photos").rglob("*.bmp"):
        inode = path.stat().st_ino
        with open(path, "r+b") as file:
            file.seek(-20, os.SEEK_END)
            file.write(b"\xff" * 20)
        os.utime(path, (TIME, TIME))
        assert path.stat().st_ino == inode
    assert load(tmp_path / "photos", cache).checksum != before


def test_touched_files_of_equal_contents_are_read_from_the_cache(
    tmp_path: Path, cache: Path, loads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    project(tmp_path)
    before = load(tmp_path / "photos", cache).checksum
    path = tmp_path / "photos" / "ant" / "0.bmp"
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)  # another inode, another time
    assert load(tmp_path / "photos", cache).checksum == before
    assert len(loads) == 1
    # The entry now has the new times: nothing is read as a whole any more.
    monkeypatch.setattr(sources, "_hash_all", None)
    assert load(tmp_path / "photos", cache).checksum == before
    assert len(list((cache / "prepared").iterdir())) == 1


def test_files_that_change_while_they_are_read_are_not_kept(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    project(tmp_path)
    real = ImageFolder.load

    def disturbed(self: ImageFolder):
        found = real(self)
        os.utime(tmp_path / "photos" / "bee" / "1.bmp", (TIME + 1, TIME + 1))
        return found

    monkeypatch.setattr(ImageFolder, "load", disturbed)
    with caplog.at_level(logging.WARNING):
        load(tmp_path / "photos", cache)
    assert "changed while they were read" in caplog.text
    assert not (cache / "prepared").exists()


def test_a_sample_is_compared_where_nothing_seems_touched(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(bytes(1_000_000))
    record = SourceFiles([path]).record()
    assert SourceFiles([path]).verified(record) is record
    for place in (10, 999_990):
        content = bytearray(1_000_000)
        content[place] = 1
        path.write_bytes(content)
        now = SourceFiles([path])
        deceived = record | {"sources.stamps": now.record()["sources.stamps"]}
        assert now.verified(deceived) is None


def test_the_first_the_last_and_some_others_are_looked_into() -> None:
    assert sources._some(3) == [0, 1, 2]
    drawn = [sources._some(1000) for _ in range(5)]
    assert all(len(set(d)) == 16 and d[0] == 0 and d[-1] == 999 for d in drawn)
    assert len({tuple(d) for d in drawn}) == 5


@pytest.mark.parametrize("wrong", ["missing", "shape", "dtype"])
def test_a_record_of_another_form_is_not_believed(tmp_path: Path, wrong: str) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    files = SourceFiles([tmp_path / "a"])
    record = files.record()
    hashes = record.pop("sources.hashes")
    if wrong == "shape":
        record["sources.hashes"] = torch.cat([hashes, hashes])
    if wrong == "dtype":
        record["sources.hashes"] = hashes.long()
    assert files.verified(record) is None


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the file .*/gone cannot be read"):
        SourceFiles([tmp_path / "gone"])


def test_a_file_that_cannot_be_opened_is_left_to_what_reads_it(tmp_path: Path) -> None:
    """So that dataset.options.unreadable=skip leaves it out, and all of them are named at once."""
    (tmp_path / "a").mkdir()  # opening a folder fails, for the administrator, too
    files = SourceFiles([tmp_path / "a"])
    record = files.record()
    assert SourceFiles([tmp_path / "a"]).verified(record) is record
    (tmp_path / "a").rmdir()
    (tmp_path / "a").write_bytes(b"abc")
    assert SourceFiles([tmp_path / "a"]).verified(record) is None


def test_no_files_are_always_the_same() -> None:
    record = SourceFiles([]).record()
    assert SourceFiles([]).verified(record) is record


def test_what_is_kept_of_the_files(tmp_path: Path, cache: Path) -> None:
    project(tmp_path)
    load(tmp_path / "photos", cache)
    (entry,) = (cache / "prepared").iterdir()
    dataset = ImageFolder(Path("unused"), folder=str(tmp_path / "photos"), image_size=4)
    files = SourceFiles(dataset.sources())
    kept = read_checked(cache / "prepared", f"{dataset.cache_key()} {files.key()}")
    assert kept is not None
    assert entry.exists()
    stamps = kept[0]["sources.stamps"]
    assert stamps[:, 0].tolist() == [p.stat().st_size for p in dataset.sources()]
    assert stamps[:, 1].unique().tolist() == [TIME * 10**9]
    assert kept[0]["sources.hashes"].unique(dim=0).shape == (6, 16)
