"""A user's own images: a folder for each class."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from metakd.data.class_split import (
    by_class,
    check_classes,
    hold_out,
    random_split,
    read_class_lists,
)
from metakd.data.images import PARTS, PreparedImages
from metakd.data.picture_files import SUFFIXES, pictures_in, read_pictures
from metakd.data.preprocessing import Reading
from metakd.errors import UserError

__all__ = ["ImageFolder"]

_VERSION = 1  # raised whenever the same settings give other images
_PART_FOLDERS = {
    "train": ("train",),
    "validate": ("val", "validate", "valid", "validation"),
    "test": ("test",),
}


class _Listing(NamedTuple):
    pictures: dict[str, list[Path]]  # class name -> its files
    split: Mapping[str, list[str]]  # part -> class names


class ImageFolder:
    """Pictures in class folders, as RGB, cut to the middle square and scaled.

    The folder holds either a folder for each class (``cats/*.jpg``, ``dogs/*.jpg`` …), dealt out
    to meta-train, meta-validation and meta-test as 60 / 20 / 20 % of the *classes* by
    `split_seed` or by the lists in the file `splits`; or it holds ``train``, ``val`` and
    ``test`` with class folders in each, no class in two of them.

    Args:
        data_root: folder of datasets; its ``image_folder`` is used where `folder` is None.
        folder: the folder with the images.
        splits: JSON file with lists of class names under ``train``, ``val`` and ``test``.
        split_seed: decides the split without lists, and the held-out fifth of each class.
        image_size: height and width in pixels.
    """

    kind = "classification"

    def __init__(
        self,
        data_root: Path,
        *,
        folder: str | None = None,
        splits: str | None = None,
        split_seed: int = 0,
        image_size: int | None = 84,
    ) -> None:
        self._folder = Path(folder).expanduser() if folder else data_root / "image_folder"
        self._splits = Path(splits).expanduser() if splits else None
        self._seed, self._size = split_seed, image_size or 84
        self._reading = Reading(crop=True)

    def cache_key(self) -> str:
        """See `Dataset.cache_key`."""
        listing = self._listing()
        files = hashlib.sha256()
        for name in sorted(listing.pictures):
            for path in listing.pictures[name]:
                status = path.stat()
                line = f"{path} {status.st_size} {status.st_mtime_ns}\n"
                files.update(line.encode("utf-8", "surrogateescape"))
        settings = [files.hexdigest(), dict(listing.split), self._seed, self._size]
        return json.dumps(["image_folder", _VERSION, settings])

    def load(self) -> PreparedImages:
        """See `Dataset.load`."""
        pictures, split = self._listing()
        names = sorted(pictures)
        paths = [path for name in names for path in pictures[name]]
        counts = torch.tensor([len(pictures[name]) for name in names])
        labels = torch.arange(len(names)).repeat_interleave(counts)
        read = read_pictures("image_folder", paths, self._size, self._reading)
        prepared = by_class(
            "image_folder",
            read.images,
            labels,
            names,
            split,
            held_out=hold_out(labels, self._seed),
        )
        return replace(prepared, reading=self._reading, notes=read.notes)

    def _listing(self) -> _Listing:
        """Find the classes, their files and their parts; refuse what cannot be used."""
        if not self._folder.is_dir():
            raise UserError(
                f"dataset image_folder: there is no folder {self._folder}: set dataset.folder=… to "
                "a folder that holds a folder of images for each class"
            )
        top = _folders(self._folder)
        names = {path.name.lower(): path for path in top}
        parts = {
            part: next((names[n] for n in known if n in names), None)
            for part, known in _PART_FOLDERS.items()
        }
        if parts["train"] and parts["test"]:
            return self._listing_of_parts({p: f for p, f in parts.items() if f is not None})
        pictures = _pictures(top)
        if len(pictures) < len(PARTS):
            raise UserError(
                f"dataset image_folder: {self._folder} holds {len(pictures)} class folders; the "
                "classes are split into meta-train, meta-validation and meta-test: give at least 3"
            )
        if self._splits is not None:
            split = read_class_lists(self._splits)
            check_classes(split, list(pictures), f"class lists {self._splits}")
            split = {part: sorted(split[part]) for part in PARTS}
        else:
            few = max(1, round(0.2 * len(pictures)))
            split = random_split(list(pictures), (len(pictures) - 2 * few, few, few), self._seed)
        return _Listing({n: pictures[n] for p in PARTS for n in split[p]}, split)

    def _listing_of_parts(self, folders: Mapping[str, Path]) -> _Listing:
        if "validate" not in folders:
            raise UserError(
                f"dataset image_folder: {self._folder} holds 'train' and 'test' and no 'val': add "
                "'val' with classes of its own, or put all class folders side by side"
            )
        by_part = {part: _pictures(_folders(folders[part])) for part in PARTS}
        split = {part: sorted(by_part[part]) for part in PARTS}
        everything = [name for part in PARTS for name in split[part]]
        check_classes(split, everything, f"dataset image_folder: {self._folder}")
        return _Listing({n: f for part in PARTS for n, f in by_part[part].items()}, split)


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    except OSError as error:
        raise UserError(
            f"dataset image_folder: {folder} cannot be read ({error.strerror})"
        ) from error


def _pictures(folders: list[Path]) -> dict[str, list[Path]]:
    """Return each class folder's files by its name."""
    pictures = {folder.name: pictures_in(folder) for folder in folders}
    for folder in folders:
        if not pictures[folder.name]:
            raise UserError(
                f"dataset image_folder: the class folder {folder} holds no image "
                f"({', '.join(SUFFIXES[:4])} …): put some there, or remove the folder"
            )
    return pictures
