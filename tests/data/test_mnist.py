from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from metakd.data.fashion_mnist import FashionMnist
from metakd.data.load import load_dataset
from metakd.data.mnist import Mnist
from metakd.errors import UserError
from metakd.task_spec import TaskSpec


def idx(values: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">i4").tobytes()
    return header + values.astype(np.uint8).tobytes()


def write(raw: Path, packed: bool = True) -> None:
    """200 training and 50 test images; the first pixel tells the label, the second the part."""
    raw.mkdir(parents=True)
    for part, n in (("train", 200), ("t10k", 50)):
        labels = np.arange(n) % 10
        images = np.zeros((n, 28, 28), dtype=np.uint8)
        images[:, 0, 0] = labels
        images[:, 0, 1] = 200 if part == "t10k" else 100
        for name, values in ((f"{part}-images-idx3", images), (f"{part}-labels-idx1", labels)):
            path = raw / f"{name}-ubyte"
            if packed:
                path.with_name(path.name + ".gz").write_bytes(gzip.compress(idx(values)))
            else:
                path.write_bytes(idx(values))


@pytest.mark.parametrize("packed", [True, False])
def test_split_by_images(tmp_path: Path, packed: bool) -> None:
    write(tmp_path / "MNIST" / "raw", packed)
    parts = Mnist(tmp_path).load().splits
    assert [len(p) for p in parts.values()] == [180, 20, 50]
    for name, part in parts.items():
        assert part.class_names == tuple("0123456789")
        assert part.examples.shape[1:] == (1, 28, 28)
        assert part.examples[:, 0, 0, 0].long().equal(part.labels)
        assert (part.held_out == (name == "test")).all()
        assert (part.examples[:, 0, 0, 1] == (200 if name == "test" else 100)).all()
    assert torch.bincount(parts["validate"].labels).tolist() == [2] * 10


def test_split_by_images_suits_partition_and_targets(tmp_path: Path) -> None:
    write(tmp_path / "MNIST" / "raw")
    data = load_dataset(Mnist(tmp_path), cache_root=tmp_path / "cache")
    tasks = data.tasks(
        "train", TaskSpec(10, 1, 2, "partition", 6), tasks=2, seed=0, stage="x"
    ).batch(0)
    assert tasks.classes.sort(dim=1).values.equal(torch.arange(10).expand(2, 10))
    target = data.target("all", None, seed=0)
    assert (len(target.train), len(target.test)) == (200, 50)
    assert len(data.without_held_out().test) == 50


def test_split_by_classes(tmp_path: Path) -> None:
    write(tmp_path / "MNIST" / "raw")
    parts = Mnist(tmp_path, splits="classes").load().splits
    assert [p.classes for p in parts.values()] == [4, 3, 3]
    assert len({n for p in parts.values() for n in p.class_names}) == 10
    assert all((p.members[1] == 25).all() for p in parts.values())
    assert all(int(p.held_out.sum()) == 5 * p.classes for p in parts.values())
    other = Mnist(tmp_path, splits="classes", split_seed=1).load().splits
    assert other["test"].class_names != parts["test"].class_names


def test_a_read_only_folder_is_enough(tmp_path: Path) -> None:
    write(tmp_path / "FashionMNIST" / "raw")
    before = sorted(tmp_path.rglob("*"))
    parts = FashionMnist(tmp_path, image_size=32).load().splits
    assert sorted(tmp_path.rglob("*")) == before
    assert parts["train"].examples.shape == (180, 1, 32, 32)


def test_two_folders_of_equal_names_sizes_and_times(tmp_path: Path) -> None:
    pixels = {}
    for root in ("first", "second"):
        raw = tmp_path / root / "MNIST" / "raw"
        write(raw, packed=False)
        images = raw / "train-images-idx3-ubyte"
        if root == "second":
            content = images.read_bytes()
            images.write_bytes(content[:16] + bytes(255 - b for b in content[16:]))
        for path in raw.iterdir():
            os.utime(path, (1_700_000_000, 1_700_000_000))
        data = load_dataset(Mnist(tmp_path / root), cache_root=tmp_path / "cache")
        pixels[root] = data.train.examples
    assert pixels["second"].equal(255 - pixels["first"])


def test_wrong_input_is_named(tmp_path: Path, monkeypatch) -> None:
    def offline(self: Mnist) -> None:
        (tmp_path / "none" / "MNIST" / "raw").mkdir(parents=True)
        raise RuntimeError("no network")

    monkeypatch.setattr(Mnist, "_fetch", offline)
    with pytest.raises(UserError, match=r"dataset mnist: looked for MNIST/raw/.* in .*none"):
        Mnist(tmp_path / "none").load()
    assert not (tmp_path / "none").exists()
    with pytest.raises(UserError, match=r"Did you mean 'classes'"):
        Mnist(tmp_path, splits="class")
    write(tmp_path / "MNIST" / "raw")
    images = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte.gz"
    content = images.read_bytes()
    for broken in (content[:50], b"no archive", gzip.compress(b"no idx")):
        images.write_bytes(broken)
        with pytest.raises(UserError, match=r"train-images-idx3-ubyte.gz is damaged"):
            Mnist(tmp_path).load()


@pytest.mark.real_data
def test_counts_of_the_real_one(real_data: Path) -> None:
    parts = Mnist(real_data).load().splits
    assert len(parts["train"]) + len(parts["validate"]) == 60_000
    assert parts["test"].members[1].tolist() == [
        980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009
    ]  # fmt: skip
