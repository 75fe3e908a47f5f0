"""Many picture files: what cannot be read, what is shown meanwhile, what does not fit."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import metakd.data.picture_files as picture_files
import metakd.data.reading_progress as progress
from metakd.data.picture_files import is_picture, read_picture, read_pictures
from metakd.data.picture_preprocessing import Reading
from metakd.errors import UserError


def write(folder: Path, count: int) -> list[Path]:
    paths = [folder / f"{i:03d}.png" for i in range(count)]
    for i, path in enumerate(paths):
        Image.new("RGB", (2, 2), (i, 0, 0)).save(path)
    return paths


def test_all_unreadable_files_are_named_at_once(tmp_path: Path) -> None:
    paths = write(tmp_path, 30)
    for path in paths[5:]:
        path.write_bytes(b"no picture")
    paths[7].write_bytes(b"")
    floats = np.full((2, 2), 300, dtype=np.float32)
    paths[9] = paths[9].with_suffix(".tif")
    Image.fromarray(floats).save(paths[9])
    with pytest.raises(UserError) as refused:
        read_pictures("some", paths, 2, Reading())
    line = str(refused.value)
    assert line.startswith(f"dataset some: 25 images cannot be read: in {tmp_path}: 005.png, 006")
    assert all(f"{i:03d}." in line for i in range(5, 25))
    assert "025.png" not in line
    assert "009.tif (its values go from 300 to 300, and white is 1; dataset.options.white" in line
    assert line.count("it is no picture of a kind that is known") == 1
    assert "; and 5 more: " in line
    assert "dataset.options.unreadable=skip" in line
    assert "\n" not in line


def test_a_single_file_is_named_with_its_whole_path(tmp_path: Path) -> None:
    paths = write(tmp_path, 2)
    paths[1].write_bytes(paths[1].read_bytes()[:40])
    with pytest.raises(UserError, match=rf"^dataset some: the image {paths[1]} cannot be read \("):
        read_pictures("some", paths, 2, Reading())


def test_unreadable_files_are_skipped_where_that_is_asked_for(tmp_path: Path) -> None:
    paths = write(tmp_path, 6)
    paths[0].write_bytes(b"no picture")
    paths[3].unlink()
    read = read_pictures("some", paths, 2, Reading(), unreadable="skip")
    assert read.kept == [1, 2, 4, 5]
    assert read.images[:, 0, 0, 0].tolist() == [1, 2, 4, 5]
    assert sorted(read.wrong) == [0, 3]
    (line,) = read.notes
    assert line.startswith("2 images were left out, since they cannot be read")
    assert "000.png" in line
    assert "003.png (" in line
    assert "No such file" in line
    assert read_pictures("some", paths[1:3], 2, Reading()).notes == ()


def test_frames_that_are_not_used_are_said(tmp_path: Path) -> None:
    paths = write(tmp_path, 3)
    frames = [Image.new("RGB", (2, 2), (value, 0, 0)) for value in (9, 99)]
    for i, form in ((1, "gif"), (2, "tif")):
        paths[i] = tmp_path / f"moving.{form}"
        frames[0].save(paths[i], save_all=True, append_images=frames[1:])
    (line,) = read_pictures("some", paths, 2, Reading()).notes
    assert line == f"of 2 images with several frames or pages the first is taken ({paths[1]})"


def test_sixteen_bits_that_all_look_like_twelve_are_refused(tmp_path: Path) -> None:
    paths = write(tmp_path, 4)
    for i, largest in ((1, 300), (2, 4095)):
        values = np.array([[0, largest], [7, 7]], dtype=np.uint16)
        Image.fromarray(values).save(paths[i])
    with pytest.raises(UserError, match=r"some: 2 pictures of 16 bits .* above 4095: set .*=4095"):
        read_pictures("some", paths, 2, Reading())
    twelve = read_pictures("some", paths, 2, Reading(white=4095)).images[:, 0, 0, 1]
    assert twelve.tolist() == [0, 19, 255, 3]  # 300 * 255 / 4095 = 18.7
    dark = read_pictures("some", paths, 2, Reading(white=65535)).images[:, 0, 0, 1]
    assert dark.tolist() == [0, 1, 16, 3]
    Image.fromarray(np.array([[0, 4096]], dtype=np.uint16)).save(paths[2])  # not all: it is 16
    assert read_pictures("some", paths, 2, Reading(crop=False)).images[1, 0, 0, 1] == 1
    Image.fromarray(np.zeros((2, 2), dtype=np.uint16)).save(paths[0])
    assert read_pictures("some", paths[:1], 2, Reading()).images.max() == 0


def test_a_bomb_is_refused_with_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = write(tmp_path, 1)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)
    with pytest.raises(UserError, match=r"000.png cannot be read .*decompression bomb"):
        read_pictures("some", [path], 2, Reading())


def test_pictures_that_do_not_fit_into_memory_are_refused_before_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / "nowhere.png"] * 1000
    need = 2 * 1000 * 3 * 64 * 64
    monkeypatch.setattr(picture_files, "available_memory", lambda device: need - 1)
    with pytest.raises(UserError, match=r"1000 pictures of 64 x 64 .*image_size") as refused:
        read_pictures("some", paths, 64, Reading())
    assert "need 0.0229 GiB" in str(refused.value)
    monkeypatch.setattr(picture_files, "available_memory", lambda device: need)
    with pytest.raises(UserError, match="cannot be read"):
        read_pictures("some", paths, 64, Reading())
    # Where nothing is known of the memory, asking for it tells.
    monkeypatch.setattr(picture_files, "available_memory", lambda device: None)
    with pytest.raises(UserError, match=r"need [0-9.e+]+ GiB of memory .* dataset.image_size"):
        read_pictures("some", paths, 2**28, Reading())


class Shown:
    def __init__(self) -> None:
        self.opened: list[tuple[str, int, int]] = []
        self.steps = self.closed = 0

    @contextmanager
    def bar(self, title: str, total: int, start: int) -> Iterator[Shown]:
        self.opened.append((title, total, start))
        yield self
        self.closed += 1

    def advance(self, steps: int = 1) -> None:
        self.steps += steps


def test_progress_is_shown_once_reading_takes_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = write(tmp_path, 5)
    shown = Shown()
    monkeypatch.setattr(picture_files, "_GROUP", 1)
    with progress.reading_shown_by(shown.bar):
        read_pictures("some", paths, 2, Reading())
        assert shown.opened == []
        monkeypatch.setattr(progress, "SILENT_S", 0.0)
        read_pictures("some", paths, 2, Reading())
        paths[2].write_bytes(b"")
        with pytest.raises(UserError):
            read_pictures("some", paths, 2, Reading())
    assert shown.opened == [("reading pictures", 5, 1)] * 2
    assert (shown.steps, shown.closed) == (8, 2)
    read_pictures("some", paths[:2], 2, Reading())
    assert len(shown.opened) == 2


def test_names_of_pictures() -> None:
    for name in ("a.JPG", "a.jfif", "a.jpe", "a.avif", "a.heic", "a.HEIF", "a.jp2", "a.tif"):
        assert is_picture(name), name
    for name in ("a.txt", ".a.png", "png", "a.cr2"):
        assert not is_picture(name), name


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".avif", ".jp2", ".tif", ".webp", ".apng"])
def test_names_that_pillow_writes_are_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    Image.new("RGB", (16, 16), (200, 100, 50)).save(path)
    pixels = read_picture(path, (4, 4), Reading())
    assert np.abs(pixels.astype(int) - [200, 100, 50]).max() <= 3


def test_heic_needs_another_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.heic"
    path.write_bytes(b"\0\0\0\x18ftypheic")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(UserError, match=r"a.heic cannot be read .*pip install pillow-heif"):
        read_picture(path, (2, 2), Reading())


def test_avif_that_this_pillow_cannot_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.avif"
    path.write_bytes(b"\0\0\0\x18ftypavif")
    monkeypatch.setattr("PIL.features.check", lambda feature: False)
    with pytest.raises(UserError, match=r"a.avif cannot be read .*pillow>=11.3"):
        read_picture(path, (2, 2), Reading())
