"""CIFAR-100: 60,000 colour images of 100 classes in 20 superclasses, 32x32."""

from __future__ import annotations

import io
import json
import lzma
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from metakd.data.class_examples import PreparedData
from metakd.data.class_split import (
    by_class,
    check_classes,
    class_lists_text,
    random_split,
    read_class_lists,
)
from metakd.data.download import at_most, damaged, download
from metakd.data.resize import resized
from metakd.errors import UserError, nearest

__all__ = ["Cifar100"]

_VERSION = 1  # raised whenever the same settings give other images
_LISTS = Path(__file__).parent / "splits"
_SPLITS = ("random", "cifar_fs", "cifar_fs_trainval", "fc100")
_PACKED = ("cifar100_train.npz.xz", "cifar100_test.npz.xz")
_LARGEST = 2**30
_UNPACKED = ("train", "test", "meta")


class _Source(NamedTuple):
    images: Tensor  # [60000, 3, 32, 32] uint8, the official training images first
    labels: Tensor  # [60000] int64
    is_test: Tensor  # [60000] bool, official test image
    class_names: list[str]


class Cifar100:
    """Krizhevsky, "Learning multiple layers of features from tiny images", 2009.

    Read from ``cifar100/cifar100_{train,test}.npz.xz`` in the folder of datasets if they are
    there, else as torchvision downloads it. A class has 600 images, its 500 official training
    images and its 100 official test images; the latter are held out for a target task. Groups
    are the 20 superclasses.

    Splits: ``random``: 64 / 16 / 20 classes by `split_seed`; ``cifar_fs`` and ``fc100``: the
    published lists, which come with the program; ``cifar_fs_trainval``: the test classes of
    ``cifar_fs``, and of its validation classes five for validation, the others for training; or a
    JSON file with lists of class names.

    Args:
        data_root: folder of datasets.
        splits: see above.
        split_seed: decides the random split.
        image_size: height and width; None: 32.
    """

    kind = "classification"
    name: ClassVar[str] = "cifar100"
    downloads: ClassVar[bool] = True
    default_split: ClassVar[str] = "random"

    def __init__(
        self,
        data_root: Path,
        *,
        splits: str | None = None,
        split_seed: int = 0,
        image_size: int | None = None,
    ) -> None:
        self._root, self._splits = data_root, splits or self.default_split
        self._seed, self._size = split_seed, image_size

    def cache_key(self) -> str:
        """See `Dataset.cache_key`."""
        lists = self._split_file()
        listed = class_lists_text(lists) if lists is not None else self._seed
        return json.dumps([self.name, _VERSION, self._files()[0].name, listed, self._size])

    def sources(self) -> list[Path]:
        """See `Dataset.cache_key`."""
        return self._files()

    def load(self) -> PreparedData:
        """See `Dataset.load`."""
        source = self._read()
        path = self._split_file()
        if path is None:
            class_lists: Mapping[str, list[str]] = random_split(
                source.class_names, (64, 16, 20), self._seed
            )
        else:
            class_lists = {p: sorted(names) for p, names in read_class_lists(path).items()}
            check_classes(class_lists, source.class_names, f"class lists {path}")
        table = _superclasses()
        coarse = list(table["coarse_label_names"])
        return by_class(
            self.name,
            resized(source.images, self._size),
            source.labels,
            source.class_names,
            class_lists,
            groups=[coarse.index(table["fine_to_coarse"][name]) for name in source.class_names],
            group_names=coarse,
            held_out=source.is_test,
        )

    def _split_file(self) -> Path | None:
        """Return the file of class lists; None for a random split."""
        if self._splits == "random":
            return None
        if self._splits in _SPLITS:
            return _LISTS / f"{self._splits}.json"
        path = Path(self._splits).expanduser()
        if not path.is_file():
            raise UserError(
                f"dataset.splits: '{self._splits}' is neither a file nor one of "
                f"{', '.join(_SPLITS)}." + nearest(self._splits, _SPLITS)
            )
        return path

    def _files(self) -> list[Path]:
        """Return the source's files, downloaded if need be."""
        packed = [self._root / "cifar100" / name for name in _PACKED]
        if all(path.is_file() for path in packed):
            return packed
        unpacked = [self._root / "cifar-100-python" / name for name in _UNPACKED]
        if not all(path.is_file() for path in unpacked):
            wanted = f"cifar100/{_PACKED[0]} and {_PACKED[1]}, or cifar-100-python/"
            download(self.name, self._root, wanted, self._fetch, made=())
        return unpacked

    def _fetch(self) -> None:
        from torchvision.datasets import CIFAR100  # one second, and seldom needed

        CIFAR100(str(self._root), download=True)

    def _read(self) -> _Source:
        files = self._files()
        if files[0].name in _PACKED:
            parts = [_read_packed(self.name, path) for path in files]
            names = parts[0][2]
            if parts[1][2] != names:
                raise UserError(
                    f"dataset {self.name}: {files[0]} and {files[1]} name different classes: get "
                    "both again"
                )
        else:
            parts = self._read_published(files[0])
            names = parts[0][2]
        images = torch.cat([torch.from_numpy(p[0]).permute(0, 3, 1, 2) for p in parts])
        labels = torch.cat([torch.from_numpy(p[1]) for p in parts])
        is_test = torch.arange(len(labels)) >= len(parts[0][1])
        return _Source(images, labels, is_test, names)

    def _read_published(self, path: Path) -> list[tuple[np.ndarray, np.ndarray, list[str]]]:
        """Read torchvision's folder; it checks each file's md5 before it opens it."""
        from torchvision.datasets import CIFAR100

        try:
            halves = [CIFAR100(str(self._root), train=train) for train in (True, False)]
        except (RuntimeError, OSError) as error:
            raise UserError(
                f"dataset {self.name}: {path.parent} is damaged ({error}): remove it, and it is "
                "downloaded again"
            ) from error
        return [(h.data, np.asarray(h.targets, dtype=np.int64), list(h.classes)) for h in halves]


def _read_packed(name: str, path: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return images [n, 32, 32, 3], labels [n] and class names of one of the .npz.xz files."""
    part = "train" if "train" in path.name else "test"
    with damaged(name, path), lzma.open(path) as packed:
        arrays = np.load(io.BytesIO(at_most(packed, _LARGEST)), allow_pickle=False)
        images, labels = arrays[f"{part}_images"], arrays[f"{part}_fine_labels"]
        names = [str(n) for n in arrays["fine_label_names"]]
        if images.dtype != np.uint8 or images.shape != (len(labels), 32, 32, 3):
            raise ValueError(f"images of shape {images.shape} and type {images.dtype}")
        if labels.ndim != 1 or labels.dtype.kind not in "iu" or not len(labels):
            raise ValueError(f"labels of shape {labels.shape} and type {labels.dtype}")
        if labels.min() < 0 or labels.max() >= len(names):
            raise ValueError(f"labels from {labels.min()} to {labels.max()}")
        if sorted(names) != sorted(_superclasses()["fine_to_coarse"]):
            raise ValueError("its classes are not those of CIFAR-100")
        return images, labels.astype(np.int64), names


def _superclasses() -> dict[str, Any]:
    with open(_LISTS / "cifar100_superclasses.json", encoding="utf-8") as file:
        table: dict[str, Any] = json.load(file)
    return table
