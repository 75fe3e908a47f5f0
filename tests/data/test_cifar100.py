from __future__ import annotations

import io
import json
import lzma
from pathlib import Path

import numpy as np
import pytest
import torch

import metakd.data.cifar100 as room
from metakd.data.cifar100 import Cifar100
from metakd.data.cifar_fs import CifarFS
from metakd.data.fc100 import FC100
from metakd.errors import UserError

with open(Path(room.__file__).parent / "splits" / "cifar100_superclasses.json") as file:
    COARSE: dict[str, str] = json.load(file)["fine_to_coarse"]
FINE = sorted(COARSE)


def pixels(labels: np.ndarray, first: int) -> np.ndarray:
    """Pictures whose first pixel tells the class and whose second one is a running number."""
    images = np.zeros((len(labels), 32, 32, 3), dtype=np.uint8)
    images[:, 0, 0, 0] = labels
    images[:, 0, 1, 2] = first + np.arange(len(labels)) % 100
    return images


LABELS = {"train": np.arange(300) % 100, "test": np.arange(100)}


def write_packed(root: Path) -> None:
    (root / "cifar100").mkdir(parents=True)
    for part, labels in LABELS.items():
        buffer = io.BytesIO()
        arrays = {
            f"{part}_images": pixels(labels, 0),
            f"{part}_fine_labels": labels,
            "fine_label_names": np.array(FINE),
        }
        np.savez(buffer, **arrays)
        packed = lzma.compress(buffer.getvalue(), preset=0)
        (root / "cifar100" / f"cifar100_{part}.npz.xz").write_bytes(packed)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_packed(folder)
    return folder


@pytest.mark.parametrize(
    ("dataset", "classes"),
    [(Cifar100, (64, 16, 20)), (CifarFS, (64, 16, 20)), (FC100, (60, 20, 20))],
)
def test_classes_images_and_held_out(root: Path, dataset, classes) -> None:
    parts = dataset(root).load().splits
    assert tuple(p.classes for p in parts.values()) == classes
    names = [name for p in parts.values() for name in p.class_names]
    assert sorted(names) == FINE
    for part in parts.values():
        assert (part.members[1] == 4).all()
        assert torch.bincount(part.labels[part.held_out]).tolist() == [1] * part.classes
        shown = [FINE[i] for i in part.examples[:, 0, 0, 0].tolist()]
        assert shown == [part.class_names[i] for i in part.labels.tolist()]
        assert [part.group_names[g] for g in part.groups.tolist()] == [
            COARSE[name] for name in part.class_names
        ]
        assert int(part.examples[:, 2, 0, 1].max()) > 0  # channels first
        assert int(part.examples[:, 1].max()) == 0


def test_no_superclass_of_fc100_is_in_two_parts(root: Path) -> None:
    groups = [set(p.groups.tolist()) for p in FC100(root).load().splits.values()]
    assert [len(g) for g in groups] == [12, 4, 4]
    assert len(set.union(*groups)) == 20


def test_published_lists() -> None:
    split = json.loads((Path(room.__file__).parent / "splits" / "cifar_fs.json").read_text())
    assert {"apple", "aquarium_fish", "bear"} <= set(split["train"] + split["val"])
    assert {"baby", "bed", "bicycle"} <= set(split["test"])


def test_more_classes_to_train_on() -> None:
    folder = Path(room.__file__).parent / "splits"
    names = ("cifar_fs", "cifar_fs_trainval")
    one, more = (json.loads((folder / f"{name}.json").read_text()) for name in names)
    assert sorted(more["test"]) == sorted(one["test"])
    assert {*more["train"]} == {*one["train"], *one["val"]} - {*more["val"]}
    assert [len({*more[split]}) for split in ("train", "val", "test")] == [75, 5, 20]
    assert {*more["val"]} < {*one["val"]}


def test_random_split_follows_its_seed(root: Path) -> None:
    def names(seed: int) -> tuple[str, ...]:
        return Cifar100(root, split_seed=seed).load().splits["test"].class_names

    assert names(0) == names(0)
    assert names(0) != names(1)


def test_lists_and_size_of_ones_own(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "lists.json"
    path.write_text(json.dumps({"train": ["apple"], "val": ["bear"], "test": ["wolf"]}))
    parts = Cifar100(root, splits=str(path), image_size=16).load().splits
    assert [p.class_names for p in parts.values()] == [("apple",), ("bear",), ("wolf",)]
    assert parts["train"].examples.shape == (4, 3, 16, 16)
    with pytest.raises(UserError, match=r"Did you mean 'fc100'"):
        Cifar100(root, splits="fc10").cache_key()


def test_torchvisions_form(tmp_path: Path, root: Path, monkeypatch) -> None:
    made = []

    class Fake:
        """What torchvision's CIFAR100 offers; the real one insists on the real files' md5."""

        classes = FINE

        def __init__(self, folder: str, train: bool = True, download: bool = False) -> None:
            if download:
                made.append(folder)
                unpacked = Path(folder) / "cifar-100-python"
                unpacked.mkdir()
                for name in ("train", "test", "meta"):
                    (unpacked / name).touch()
            labels = LABELS["train" if train else "test"]
            self.data, self.targets = pixels(labels, 0), labels.tolist()

    monkeypatch.setattr("torchvision.datasets.CIFAR100", Fake)
    fetched = CifarFS(tmp_path).load()
    assert made == [str(tmp_path)]
    for part, images in CifarFS(root).load().splits.items():
        assert fetched.splits[part].examples.equal(images.examples)
        assert fetched.splits[part].held_out.equal(images.held_out)
    CifarFS(tmp_path).cache_key()
    assert len(made) == 1


def test_missing_and_damaged_files_are_named(tmp_path: Path, monkeypatch) -> None:
    def offline(self: Cifar100) -> None:
        raise RuntimeError("no network")

    monkeypatch.setattr(Cifar100, "_fetch", offline)
    with pytest.raises(UserError, match=r"dataset cifar_fs: looked for cifar100/.* METAKD_DATA"):
        CifarFS(tmp_path).load()
    write_packed(tmp_path)
    path = tmp_path / "cifar100" / "cifar100_train.npz.xz"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match=r"cifar100_train.npz.xz is damaged"):
        Cifar100(tmp_path).load()
