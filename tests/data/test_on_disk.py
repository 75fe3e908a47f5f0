"""Prepared data that is larger than memory may be: mapped from files, to the same bits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn import functional as F

import metakd
from metakd.data import on_disk
from metakd.data.cache import content_checksum
from metakd.data.class_data import ClassData
from metakd.data.class_split import hold_out
from metakd.data.image_folder import ImageFolder
from metakd.data.load import load_dataset
from metakd.data.on_disk import (
    is_mapped,
    large_in,
    read_mapped,
    room,
    taken,
    touched,
    write_tensors,
)
from metakd.data.resize import resized
from metakd.data.splits import SPLITS
from metakd.errors import UserError
from metakd.pipeline.prepare import prepare


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for name in "abcdefghij":
        (folder / name).mkdir()
        for i in range(8):
            pixels = random.integers(0, 256, (12, 12, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


def load(folder: Path, cache: Path, in_memory: float) -> ClassData:
    dataset = ImageFolder(folder, folder=str(folder), image_size=8)
    data = load_dataset(dataset, cache_root=cache, in_memory=in_memory)
    assert isinstance(data, ClassData)
    return data


def test_first_and_second_start_hold_the_same_in_a_file(photos: Path, tmp_path: Path) -> None:
    usual = load(photos, tmp_path / "usual", 1.0)
    assert not any(is_mapped(usual.split(s).examples) for s in SPLITS)
    for _ in ("first", "second"):
        data = load(photos, tmp_path / "mapped", 0.0)
        assert data.checksum == usual.checksum
        assert data.preprocessing == usual.preprocessing
        for split in SPLITS:
            found, expected = data.split(split), usual.split(split)
            assert is_mapped(found.examples)
            assert torch.equal(found.examples, expected.examples)
            assert torch.equal(found.labels, expected.labels)
        learned, known = data.without_held_out().train, usual.without_held_out().train
        assert is_mapped(learned.examples)
        assert torch.equal(learned.examples, known.examples)
    # What is written of a map is read by anyone.
    entry = next(iter((tmp_path / "mapped" / "prepared").glob("*.safetensors")))
    other = next(iter((tmp_path / "usual" / "prepared").glob("*.safetensors")))
    assert content_checksum(load_file(entry), {}) == content_checksum(load_file(other), {})
    assert {p.suffix for p in entry.parent.iterdir()} == {".safetensors"}  # no other file is left


def test_a_damaged_entry_is_made_anew(photos: Path, tmp_path: Path) -> None:
    data = load(photos, tmp_path, 0.0)
    entry = next(iter((tmp_path / "prepared").glob("*.safetensors")))
    whole = entry.read_bytes()
    for content in (
        whole[:-100],
        whole[:-1] + bytes([whole[-1] ^ 1]),
        b"\xff" * 8 + whole[8:],
        b"",
    ):
        entry.write_bytes(content)
        assert load(photos, tmp_path, 0.0).checksum == data.checksum
        assert entry.read_bytes() == whole


def test_pages_are_dropped_and_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dropped: list[int] = []

    class Watched(on_disk._Map):
        def madvise(self, *given: int) -> None:
            dropped.append(given[0])
            super().madvise(*given)

    monkeypatch.setattr(on_disk, "_Map", Watched)
    monkeypatch.setattr(on_disk, "_DROP", 100)
    with large_in(tmp_path, 199):
        assert not is_mapped(room((199,)))
        mapped = room((20, 10))
    assert is_mapped(mapped)
    mapped.copy_(torch.arange(200, dtype=torch.uint8).view(20, 10))
    touched(mapped, 99)
    assert not dropped
    assert taken(mapped, torch.tensor([3])).tolist() == [list(range(30, 40))]
    assert len(dropped) == 1
    assert mapped.flatten().tolist() == list(range(200))
    assert not list(tmp_path.iterdir())


def test_types_and_shapes_are_kept(tmp_path: Path) -> None:
    tensors = {
        "a": torch.tensor([True, False, True]),
        "b": torch.arange(6).view(2, 3),
        "c": torch.rand(2, 1, dtype=torch.float64),
        "d": torch.zeros(0, 3, dtype=torch.uint8),
    }
    write_tensors(tensors, tmp_path / "file", {"k": "v"})
    found, metadata = read_mapped(tmp_path / "file")
    assert metadata == {"k": "v"}
    for name, tensor in load_file(tmp_path / "file").items():
        assert torch.equal(found[name], tensor)
        assert torch.equal(tensors[name], tensor)
        assert found[name].dtype == tensors[name].dtype


def test_what_is_made_of_mapped_examples_is_mapped(photos: Path, tmp_path: Path) -> None:
    usual, data = (load(photos, tmp_path / str(share), share) for share in (1.0, 0.0))
    target, expected = data.target("all", None, 0), usual.target("all", None, 0)
    # Its two sides are taken out of all examples, which are joined in a file for that.
    assert is_mapped(target.train.examples)
    assert torch.equal(target.train.examples, expected.train.examples)
    assert torch.equal(target.test.labels, expected.test.labels)
    larger = replace(usual.preprocessing, height=11, width=11)
    seen, known = data.seen_as(larger), usual.seen_as(larger)
    assert is_mapped(seen.train.examples)
    assert torch.equal(seen.train.examples, known.train.examples)


def test_resized_images_are_mapped_where_they_are_large(tmp_path: Path) -> None:
    images = torch.randint(0, 256, (300, 8, 8, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    whole = F.interpolate(images.float(), size=(12, 12), mode="bilinear", antialias=True)
    for most in (10**9, 1000):
        with large_in(tmp_path, most), pytest.MonkeyPatch.context() as patch:
            patch.setattr("metakd.data.resize._NUMBERS", 7 * 3 * 12 * 12)  # seven at a time
            found = resized(images, 12)
        assert is_mapped(found) == (most == 1000)
        assert torch.equal(found, whole.round().clamp(0, 255).to(torch.uint8))


def test_pictures_are_read_where_they_stay(photos: Path, tmp_path: Path) -> None:
    prepared = load(photos, tmp_path, 1.0).prepared  # read from the cache on the second start
    dataset = ImageFolder(photos, folder=str(photos), image_size=8)
    read = dataset.load()
    places = {read.splits[s].examples.untyped_storage().data_ptr() for s in SPLITS}
    assert len(places) == 1
    # Which are held out is decided by the order of names, not by that of splits.
    names = sorted(name for s in SPLITS for name in read.splits[s].class_names)
    held = hold_out(torch.arange(10).repeat_interleave(8), 0).view(10, 8)
    for split in SPLITS:
        found = read.splits[split]
        rows = torch.cat([held[names.index(name)] for name in found.class_names])
        assert torch.equal(found.held_out, rows)
        assert torch.equal(found.examples, prepared.splits[split].examples)


def test_no_room_on_the_disk(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with large_in(tmp_path / "file", 0), pytest.raises(UserError, match="METAKD_CACHE"):
        room((2, 2))


def test_a_run_reaches_the_same_figures(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("METAKD_CACHE", str(tmp_path / "cache"))
    words = (
        "dataset=image_folder",
        f"dataset.folder={photos}",
        "dataset.image_size=16",
        "algorithm=protonet",
        "student=conv4",
        "student.width=8",
        "teacher=conv4",
        "teacher.width=8",
        "pretrain.epochs=1",
        "warmstart.epochs=1",
        "meta_train.iterations=2",
        "meta_train.validate_tasks=4",
        "task.ways=2",
        "task.shots=1",
        "task.queries=2",
        "task.train_ways=2",
        "task.meta_batch=2",
        "evaluate.tasks=4",
        "evaluate.shots=[]",
        "student_alone=false",
        "tracker=none",
        "device=cpu",
    )
    figures = []
    for share in (1, 0):
        settings = (*words, f"dataset.in_memory={share}")
        data = prepare(metakd.compose(*settings)).class_data
        assert is_mapped(data.train.examples) == (share == 0)
        results = metakd.train(*settings, f"hydra.run.dir={tmp_path / str(share)}", quiet=True)
        figures.append([results[model]["fewshot"] for model in ("student", "teacher")])
    assert figures[0] == figures[1]
