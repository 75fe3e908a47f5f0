from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from metakd.data import load
from metakd.data.class_examples import PreparedData
from metakd.data.dataset import REQUIRED, RegressionTasks
from metakd.data.images import ImageData
from metakd.data.load import cache_root_from, data_root_from, load_dataset
from metakd.data.picture_preprocessing import Reading
from metakd.data.splits import SPLITS
from metakd.errors import UserError


class Counted:
    """A dataset that counts how often it is prepared."""

    kind = "classification"

    def __init__(self, images, key: str | None = "counted 1") -> None:
        self.examples, self.key, self.loads = images, key, 0

    def cache_key(self) -> str | None:
        return self.key

    def load(self) -> PreparedData:
        self.loads += 1
        return PreparedData(dict.fromkeys(SPLITS, self.examples), "counted")


def test_prepared_once_then_read_from_the_cache(tmp_path: Path, make_images) -> None:
    dataset = Counted(make_images([5, 6], groups=[0, 1]))
    first = load_dataset(dataset, cache_root=tmp_path)
    second = load_dataset(dataset, cache_root=tmp_path, augment=["flip"], views=2)
    assert dataset.loads == 1
    assert isinstance(first, ImageData)
    assert isinstance(second, ImageData)
    for part in SPLITS:
        one, two = first.split(part), second.split(part)
        assert (one.class_names, one.group_names) == (two.class_names, two.group_names)
        for name in ("examples", "labels", "groups", "held_out"):
            assert getattr(one, name).equal(getattr(two, name))
    assert (second.name, second.augment, second.views) == ("counted", ("flip",), 2)
    assert len(first.checksum) == 64
    assert first.checksum == second.checksum


def test_a_copied_or_edited_class_of_ones_own_is_another(
    tmp_path: Path, make_images, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its key may be that of the class it was copied from, its version number that of before."""

    class Copied(Counted):
        pass

    load_dataset(Counted(make_images([5, 6])), cache_root=tmp_path)
    copied = Copied(make_images([7, 8]))
    assert len(load_dataset(copied, cache_root=tmp_path).split("train").labels) == 15
    load_dataset(copied, cache_root=tmp_path)
    assert copied.loads == 1
    monkeypatch.setattr(load, "source_fingerprint", lambda cls: "edited")
    load_dataset(copied, cache_root=tmp_path)
    assert copied.loads == 2


def test_a_truncated_entry_is_rebuilt_with_the_same_checksum(tmp_path: Path, make_images) -> None:
    dataset = Counted(make_images([5, 6]))
    before = load_dataset(dataset, cache_root=tmp_path).checksum
    (entry,) = (tmp_path / "prepared").glob("*")
    os.truncate(entry, entry.stat().st_size // 2)
    assert load_dataset(dataset, cache_root=tmp_path).checksum == before
    assert dataset.loads == 2
    load_dataset(dataset, cache_root=tmp_path)
    assert dataset.loads == 2


def test_another_key_is_another_entry_and_none_is_not_kept(tmp_path: Path, make_images) -> None:
    dataset = Counted(make_images([5, 6]))
    load_dataset(dataset, cache_root=tmp_path)
    dataset.key = "counted 2"
    load_dataset(dataset, cache_root=tmp_path)
    assert dataset.loads == 2
    assert len(list((tmp_path / "prepared").glob("*"))) == 2
    dataset.key = None
    load_dataset(dataset, cache_root=tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_works_without_a_cache(tmp_path: Path, make_images) -> None:
    (tmp_path / "file").touch()
    dataset = Counted(make_images([5, 6]))
    kept = load_dataset(dataset, cache_root=tmp_path)
    unkept = load_dataset(dataset, cache_root=tmp_path / "file")
    assert kept.checksum == unkept.checksum


def test_other_pixels_have_another_checksum(tmp_path: Path, make_images) -> None:
    images = make_images([5, 6])
    before = load_dataset(Counted(images, None), cache_root=tmp_path).checksum
    images.examples[3, 0, 0, 0] ^= 1
    assert load_dataset(Counted(images, None), cache_root=tmp_path).checksum != before


class Moved(RegressionTasks):
    name, example_shape, outputs, checksum, device = "moved", (2,), 3, "00", torch.device("cpu")

    def to(self, device: torch.device | str) -> Moved:
        self.device = torch.device(device)
        return self

    def tasks(self, *_, **__):
        raise AssertionError


class Family:
    """A dataset of what it is given."""

    def __init__(self, tasks) -> None:
        self.tasks = tasks

    def cache_key(self) -> None:
        return None

    def load(self):
        return self.tasks


def test_regression_tasks_are_moved_and_not_kept(tmp_path: Path) -> None:
    moved = load_dataset(Family(Moved()), cache_root=tmp_path, device="meta")
    assert moved.device == torch.device("meta")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("missing", REQUIRED)
def test_regression_tasks_that_lack_something_are_refused(tmp_path: Path, missing: str) -> None:
    own = {name: value for name, value in vars(Moved).items() if name in REQUIRED}
    own.pop(missing)
    tasks = type("Lacking", (RegressionTasks,), own)()
    with pytest.raises(UserError, match=f"^Lacking: .* defines {missing}, too$"):
        load_dataset(Family(tasks), cache_root=tmp_path)


@pytest.mark.parametrize("loaded", [None, [], type("Tasks", (), dict(vars(Moved)))()])
def test_what_is_no_data_is_refused(tmp_path: Path, loaded: object) -> None:
    name = type(loaded).__name__
    message = f"^Family.load returned a {name}: .* inherit from metakd.data.dataset.RegressionTasks"
    with pytest.raises(UserError, match=message):
        load_dataset(Family(loaded), cache_root=tmp_path)


def test_folders(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("METAKD_DATA", "METAKD_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/someone")
    assert data_root_from(None) == tmp_path / "data"
    assert cache_root_from(None) == Path("/home/someone/.cache/metakd")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_root_from(None) == Path("/xdg/metakd")
    monkeypatch.setenv("METAKD_DATA", "/été")
    monkeypatch.setenv("METAKD_CACHE", "~/kept")
    assert data_root_from(None) == Path("/été")
    assert cache_root_from(None) == Path("/home/someone/kept")
    assert data_root_from("here/a=b") == tmp_path / "here" / "a=b"
    assert cache_root_from("here") == tmp_path / "here"


def test_reading_and_notes_are_kept_and_no_part_of_the_checksum(
    tmp_path: Path, make_images
) -> None:
    images = make_images([5, 6])
    plain = load_dataset(Counted(images, None), cache_root=tmp_path)

    class Read(Counted):
        def load(self) -> PreparedData:
            reading = Reading(crop=False, background=7, white=4095.0)
            return replace(super().load(), reading=reading, notes=("a line", "another"))

    dataset = Read(images)
    for _ in range(2):
        prepared = load_dataset(dataset, cache_root=tmp_path).prepared
        assert prepared.reading == Reading(crop=False, background=7, white=4095.0)
        assert prepared.notes == ("a line", "another")
    assert dataset.loads == 1
    assert load_dataset(dataset, cache_root=tmp_path).checksum == plain.checksum
    assert (plain.prepared.reading, plain.prepared.notes) == (Reading(), ())
    kept = load_dataset(dataset, cache_root=tmp_path).without_held_out().prepared
    assert kept.notes == ("a line", "another")
