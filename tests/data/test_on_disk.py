"""Prepared data that is larger than memory may be: mapped from files, to the same bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import metakd
from metakd.data import on_disk
from metakd.data.cache import content_checksum
from metakd.data.class_data import ClassData
from metakd.data.image_folder import ImageFolder
from metakd.data.load import load_dataset
from metakd.data.on_disk import (
    is_mapped,
    large_in,
    read_mapped,
    room,
    taken,
    touched,
    write_mapped,
)
from metakd.data.splits import SPLITS
from metakd.errors import UserError
from metakd.pipeline.prepare import prepare

pytestmark = pytest.mark.usefixtures("without_figures")


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
    write_mapped(tensors, tmp_path / "file", {"k": "v"})
    found, metadata = read_mapped(tmp_path / "file")
    assert metadata == {"k": "v"}
    for name, tensor in load_file(tmp_path / "file").items():
        assert torch.equal(found[name], tensor)
        assert torch.equal(tensors[name], tensor)
        assert found[name].dtype == tensors[name].dtype


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
