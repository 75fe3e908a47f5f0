"""MNIST: 70,000 handwritten digits, 28x28."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from metakd.data.class_examples import ClassExamples, PreparedData
from metakd.data.class_split import by_class, hold_out, random_split
from metakd.data.download import at_most, damaged, download
from metakd.data.resize import resized
from metakd.errors import check_word

__all__ = ["Mnist"]

_VERSION = 1  # raised whenever the same settings give other images
_LARGEST = 2**28
_SPLITS = ("images", "classes")
_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


class Mnist:
    """LeCun, Cortes and Burges, "The MNIST database of handwritten digits".

    Read from ``MNIST/raw/`` in the folder of datasets, gzipped or not, downloaded by torchvision
    if it is not there. The official test images are held out for a target task.

    Splits:
        * ``images``: every split holds all ten classes and images of its own: meta-test the
          official test images, meta-validation a tenth of the official training images (by
          `split_seed`), meta-train the rest. Made for ``task.sampling=partition``.
        * ``classes``: 4 / 3 / 3 of the classes, by `split_seed`, with all their images.

    Args:
        data_root: folder of datasets; not written to when the files are there.
        splits: see above.
        split_seed: decides the split.
        image_size: height and width; None: 28.
    """

    kind = "classification"
    name: ClassVar[str] = "mnist"
    downloads: ClassVar[bool] = True
    folder: ClassVar[str] = "MNIST"
    published: ClassVar[str] = "MNIST"
    """Name of torchvision's class."""
    class_names: ClassVar[tuple[str, ...]] = tuple("0123456789")

    def __init__(
        self,
        data_root: Path,
        *,
        splits: str | None = "images",
        split_seed: int = 0,
        image_size: int | None = None,
    ) -> None:
        self._root, self._splits = data_root, splits or "images"
        self._seed, self._size = split_seed, image_size
        check_word("dataset.splits", self._splits, _SPLITS)

    def cache_key(self) -> str:
        """See `Dataset.cache_key`."""
        settings = [self._splits, self._seed, self._size]
        return json.dumps([self.name, _VERSION, settings])

    def sources(self) -> list[Path]:
        """See `Dataset.cache_key`."""
        return self._files()

    def load(self) -> PreparedData:
        """See `Dataset.load`."""
        arrays = [_read_idx(self.name, path) for path in self._files()]
        train_images, train_labels, test_images, test_labels = arrays
        classes = len(self.class_names)
        _check_halves(self.name, self._files()[1], train_images, train_labels, classes)
        _check_halves(self.name, self._files()[3], test_images, test_labels, classes)
        images = resized(torch.cat([train_images, test_images])[:, None], self._size)
        labels = torch.cat([train_labels, test_labels]).long()
        official_test = torch.arange(len(labels)) >= len(train_labels)
        if self._splits == "classes":
            class_lists = random_split(self.class_names, (4, 3, 3), self._seed)
            return by_class(
                self.name, images, labels, self.class_names, class_lists, held_out=official_test
            )
        validate = torch.zeros_like(official_test)
        validate[: len(train_labels)] = hold_out(train_labels.long(), self._seed, share=0.1)
        members = {
            "train": ~official_test & ~validate,
            "validate": validate,
            "test": official_test,
        }
        everything = ClassExamples(
            images, labels, self.class_names, torch.zeros(10, dtype=torch.int64), official_test
        )
        splits = {}
        for split, member in members.items():
            at = member.nonzero().flatten()
            # Images of a class lie side by side, so that gathering a task touches few pages.
            splits[split] = everything.select(at[labels[at].argsort(stable=True)])
        return PreparedData(splits, self.name)

    def _files(self) -> list[Path]:
        """Return the source's four files, downloaded if need be."""
        raw = self._root / self.folder / "raw"
        found = [_find(raw, name) for name in _FILES]
        if not all(found):
            wanted = f"{self.folder}/raw/*-ubyte.gz"
            made = (self.folder, f"{self.folder}/raw")
            download(self.name, self._root, wanted, self._fetch, made)
            found = [_find(raw, name) for name in _FILES]
        return [path for path in found if path is not None]

    def _fetch(self) -> None:
        import torchvision.datasets  # one second, and seldom needed

        getattr(torchvision.datasets, self.published)(str(self._root), download=True)


def _find(folder: Path, name: str) -> Path | None:
    """Return the archive `name`.gz in `folder`, or the unpacked file, or None."""
    return next((p for p in (folder / f"{name}.gz", folder / name) if p.is_file()), None)


def _read_idx(dataset: str, path: Path) -> Tensor:
    """Read an idx file of bytes: images [n, 28, 28] or labels [n], uint8."""
    with damaged(dataset, path):
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = at_most(file, _LARGEST)
        if content[:3] != b"\x00\x00\x08" or content[3:4] not in (b"\x01", b"\x03"):
            raise ValueError("no idx file of bytes")
        dimensions = content[3]
        shape = np.frombuffer(content, ">i4", count=dimensions, offset=4)
        values = np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions)
        if (shape < 1).any() or tuple(shape[1:]) not in ((), (28, 28)):
            raise ValueError(f"values of shape {tuple(shape.tolist())}")
        return torch.from_numpy(values.reshape(tuple(shape)).copy())


def _check_halves(name: str, path: Path, images: Tensor, labels: Tensor, classes: int) -> None:
    """Refuse images and labels that do not belong together."""
    with damaged(name, path):
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
            raise ValueError(f"labels {list(labels.shape)} of images {list(images.shape)}")
        if int(labels.max()) >= classes:
            raise ValueError(f"a label {int(labels.max())}, and there are {classes} classes")
