"""miniImageNet: 100 ImageNet classes with 600 images each, from a user's own folder."""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import torch

from metakd.data.class_examples import PreparedData
from metakd.data.class_names import class_name
from metakd.data.class_pictures import PictureSettings, read_class_pictures
from metakd.data.class_split import by_class, check_classes, hold_out
from metakd.data.splits import SPLITS
from metakd.errors import UserError

__all__ = ["MiniImagenet"]

_VERSION = 2  # raised whenever the same settings give other images
_LISTS = {"train": "train", "validate": "val", "test": "test"}


class MiniImagenet:
    """Vinyals et al. 2016, split as Ravi and Larochelle 2017 did: 64 / 16 / 20 classes.

    ImageNet's terms allow no download, so the pictures come from a folder of the user's: in it or
    in its folder ``images`` lie the files that the lists name. The lists ``train.csv``,
    ``val.csv`` and ``test.csv`` (columns ``filename,label``) lie in the folder `splits`, in the
    folder itself, or as ``splits/mini_imagenet_train.csv`` … in the folder of datasets.

    Args:
        data_root: folder of datasets; its ``mini_imagenet`` is used where `folder` is None.
        folder: the folder with the images.
        splits: the folder with the lists.
        split_seed: decides the held-out fifth of each class.
        image_size: height and width in pixels; 84 is the customary size.
        pictures: how files are read.
    """

    kind = "classification"
    any_size = True
    """Pictures are read at whatever size is asked for."""

    def __init__(
        self,
        data_root: Path,
        *,
        folder: str | None = None,
        splits: str | None = None,
        split_seed: int = 0,
        image_size: int | None = 84,
        pictures: PictureSettings = PictureSettings(crop=False),
    ) -> None:
        self._root = data_root
        self._folder = Path(folder).expanduser() if folder else data_root / "mini_imagenet"
        self._splits = Path(splits).expanduser() if splits else None
        self._seed, self._size = split_seed, image_size or 84
        self._pictures = pictures

    def cache_key(self) -> str:
        """See `Dataset.cache_key`."""
        digest = hashlib.sha256()
        self._images()
        for split in SPLITS:
            for name, label in self._rows(split):
                digest.update(f"{split} {name} {label}\n".encode("utf-8", "surrogateescape"))
        settings = [digest.hexdigest(), self._seed, self._size]
        return json.dumps(["mini_imagenet", _VERSION, settings, self._pictures.key()])

    def sources(self) -> list[Path]:
        """See `Dataset.cache_key`."""
        images = self._images()
        paths = []
        for split in SPLITS:
            for name, _ in self._rows(split):
                self._check_there(images / name, split)
                paths.append(images / name)
        return paths

    def load(self) -> PreparedData:
        """See `Dataset.load`."""
        images = self._images()
        rows = {split: self._rows(split) for split in SPLITS}
        class_lists = {split: sorted({label for _, label in rows[split]}) for split in SPLITS}
        names = [name for split in SPLITS for name in class_lists[split]]
        check_classes(class_lists, names, "dataset mini_imagenet: the lists")
        number = {name: i for i, name in enumerate(names)}
        pairs = [pair for split in SPLITS for pair in rows[split]]
        labels = torch.tensor([number[label] for _, label in pairs])
        whose: dict[str, str] = {}
        for split in SPLITS:
            for name, _ in rows[split]:
                self._check_there(images / name, split)
                if whose.setdefault(name, split) != split:
                    raise UserError(
                        f"dataset mini_imagenet: '{name}' stands in the lists of '{whose[name]}' "
                        f"and of '{split}': an image belongs to one class"
                    )
        paths = [images / name for name, _ in pairs]
        read = read_class_pictures(
            "mini_imagenet", paths, labels, names, self._size, self._pictures
        )
        prepared = by_class(
            "mini_imagenet",
            read.images,
            read.labels,
            names,
            class_lists,
            held_out=hold_out(read.labels, self._seed),
        )
        return replace(prepared, reading=self._pictures.reading, notes=read.notes)

    def _images(self) -> Path:
        if not self._folder.is_dir():
            raise UserError(
                f"dataset mini_imagenet: there is no folder {self._folder}: put the benchmark's "
                "60,000 images there (in 'images/' or directly), or set dataset.folder=…"
            )
        inner = self._folder / "images"
        return inner if inner.is_dir() else self._folder

    def _list(self, split: str) -> Path:
        """Return the file that lists the images of `split`."""
        name = _LISTS[split]
        if self._splits is not None:
            places = [self._splits / f"{name}.csv", self._splits / f"mini_imagenet_{name}.csv"]
        else:
            places = [
                self._folder / f"{name}.csv",
                self._root / "splits" / f"mini_imagenet_{name}.csv",
            ]
        for place in places:
            if place.is_file():
                return place
        raise UserError(
            f"dataset mini_imagenet: neither {places[0]} nor {places[1]} is there: put the lists "
            "(columns filename,label) in one of these places, or set dataset.splits=FOLDER"
        )

    def _rows(self, split: str) -> list[tuple[str, str]]:
        """Return file name and class of each image of `split`."""
        path = self._list(split)
        try:
            with open(path, encoding="utf-8-sig", newline="") as file:
                rows = [(row["filename"], row["label"]) for row in csv.DictReader(file)]
        except (OSError, ValueError, KeyError, csv.Error) as error:
            raise UserError(
                f"dataset mini_imagenet: the list {path} cannot be read ({error!r}): its first "
                "line must be 'filename,label'"
            ) from error
        if not rows:
            raise UserError(f"dataset mini_imagenet: the list {path} names no image")
        seen: set[str] = set()
        for number, (name, label) in enumerate(rows, start=1):
            wrong = None
            if not name or not label:
                wrong = "names no image or no class"
            elif Path(name).is_absolute() or ".." in Path(name).parts or "\0" in name:
                wrong = f"names '{name}', which lies outside the folder of images"
            elif name in seen:
                wrong = f"names '{name}' a second time"
            if wrong:
                raise UserError(
                    f"dataset mini_imagenet: the list {path}, entry {number}, {wrong}: correct it"
                )
            seen.add(name)
        return [(name, class_name(label)) for name, label in rows]

    def _check_there(self, path: Path, split: str) -> None:
        if not path.is_file():
            raise UserError(
                f"dataset mini_imagenet: {path}, named in {self._list(split)}, is not there: put "
                "all the images there, or take it off the list"
            )
