"""A user's own images: a folder for each class."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from metakd.data.class_examples import PreparedData
from metakd.data.class_folders import ClassFolders, find_class_folders
from metakd.data.class_pictures import PictureSettings, read_class_pictures
from metakd.data.class_split import (
    by_class,
    check_classes,
    hold_out,
    matched_classes,
    random_split,
    read_class_lists,
)
from metakd.data.left_out import deeper_pictures, left_out, other_files
from metakd.data.picture_files import SUFFIXES, pictures_in
from metakd.data.splits import SPLITS
from metakd.errors import UserError

__all__ = ["ImageFolder"]

_VERSION = 2  # raised whenever the same settings give other images


class _Listing(NamedTuple):
    pictures: dict[str, list[Path]]  # class name -> its files
    class_lists: dict[str, list[str]]  # split -> class names
    notes: tuple[str, ...]  # what is not used


class ImageFolder:
    """Pictures in class folders, as RGB, brought to a square and scaled.

    The folder holds either a folder for each class (``cats/*.jpg``, ``dogs/*.jpg`` …), dealt out
    to meta-train, meta-validation and meta-test as 60 / 20 / 20 % of the *classes* by
    `split_seed` or by the lists in the file `splits`; or it holds ``train``, ``val`` and
    ``test`` with class folders in each, no class in two of them. Lists and folders may leave out
    splits that are not needed: they then hold no class.

    Args:
        data_root: folder of datasets; its ``image_folder`` is used where `folder` is None.
        folder: the folder with the images.
        splits: JSON file with lists of class names under ``train``, ``val`` and ``test``.
        split_seed: decides the split without lists, and the held-out fifth of each class.
        image_size: height and width in pixels.
        all_test: every class folder is a meta-test class, wherever it lies.
        crop: cut the middle square out of a picture that is not square; otherwise squeeze it.
        background: grey level (0 … 255) under transparent pixels.
        white: value of white in pictures of more than 8 bits; None: told by each file.
        unreadable: `refuse` pictures that cannot be read, or `skip` them.

    Attributes:
        recorded_split: class names of each split as a run recorded them, set after construction;
            they are taken whatever else the folder holds now, and a missing one is refused. None:
            the settings decide.
        may_lack: splits of `recorded_split` whose classes may be missing, set likewise.
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
        all_test: bool = False,
        crop: bool = True,
        background: int = 255,
        white: float | None = None,
        unreadable: str = "refuse",
    ) -> None:
        self._folder = Path(folder).expanduser() if folder else data_root / "image_folder"
        self._splits = Path(splits).expanduser() if splits else None
        self._seed, self._size = split_seed, image_size or 84
        self._pictures = PictureSettings.checked(
            crop=crop, background=background, white=white, unreadable=unreadable
        )
        self._all_test = all_test
        self.recorded_split: dict[str, list[str]] | None = None
        self.may_lack: tuple[str, ...] = ()
        if not isinstance(all_test, bool):
            raise UserError(f"dataset.options.all_test={all_test}: type true or false")
        if all_test and splits:
            raise UserError(
                f"dataset.options.all_test=true makes every class a meta-test class, and "
                f"dataset.splits={splits} says otherwise: type one of the two"
            )

    def cache_key(self) -> str:
        """See `Dataset.cache_key`."""
        listing = self._listing()
        settings = [listing.class_lists, listing.notes, self._seed, self._size]
        return json.dumps(["image_folder", _VERSION, settings, self._pictures.key()])

    def sources(self) -> list[Path]:
        """See `Dataset.cache_key`."""
        pictures = self._listing().pictures
        return [path for name in sorted(pictures) for path in pictures[name]]

    def load(self) -> PreparedData:
        """See `Dataset.load`."""
        pictures, class_lists, notes = self._listing()
        names = sorted(pictures)
        paths = [path for name in names for path in pictures[name]]
        counts = torch.tensor([len(pictures[name]) for name in names])
        labels = torch.arange(len(names)).repeat_interleave(counts)
        read = read_class_pictures("image_folder", paths, labels, names, self._size, self._pictures)
        prepared = by_class(
            "image_folder",
            read.images,
            read.labels,
            names,
            class_lists,
            held_out=hold_out(read.labels, self._seed),
        )
        return replace(prepared, reading=self._pictures.reading, notes=(*notes, *read.notes))

    def _listing(self) -> _Listing:
        """Find the classes, their files and their splits; refuse what cannot be used."""
        found = find_class_folders(self._folder)
        class_lists, notes = self._there(self._split(found), found)
        places = {n: found.place(split, n) for split in SPLITS for n in class_lists[split]}
        return _Listing(_pictures(places), class_lists, (*notes, *left_out(found, places)))

    def _there(
        self, class_lists: dict[str, list[str]], found: ClassFolders
    ) -> tuple[dict[str, list[str]], list[str]]:
        """Return the lists without missing classes that are not needed, and a line about them."""
        gone = {n for s in self.may_lack for n in class_lists[s] if found.find(s, n) is None}
        if not gone:
            return class_lists, []
        shown = ", ".join(f"'{name}'" for name in sorted(gone)[:3]) + " …" * (len(gone) > 3)
        return {s: [n for n in names if n not in gone] for s, names in class_lists.items()}, [
            f"dataset image_folder: {len(gone)} class folders of this run are not there ({shown}); "
            "it is evaluated on none of them"
        ]

    def _split(self, found: ClassFolders) -> dict[str, list[str]]:
        """Return the class names of each split."""
        if self.recorded_split is not None:
            return {split: list(self.recorded_split.get(split, [])) for split in SPLITS}
        names, where = found.all_names(), f"dataset image_folder: {self._folder}"
        if found.by_split is not None:
            if self._splits is not None:
                raise UserError(
                    f"dataset.splits={self._splits}: {self._folder} is split already, into "
                    "train, val and test: leave out dataset.splits, or put all class folders side "
                    "by side"
                )
            class_lists = {split: sorted(found.by_split[split]) for split in SPLITS}
            check_classes(class_lists, names, where)
        if self._all_test:
            class_lists = {"train": [], "validate": [], "test": names}
            check_classes(class_lists, names, where)
        elif self._splits is not None:
            lists = f"class lists {self._splits}"
            class_lists = matched_classes(read_class_lists(self._splits), names, lists)
            class_lists = {split: sorted(class_lists[split]) for split in SPLITS}
        elif found.by_split is None:
            class_lists = self._dealt_out(names, where)
        return class_lists

    def _dealt_out(self, names: list[str], where: str) -> dict[str, list[str]]:
        if len(names) < len(SPLITS):
            raise UserError(
                f"{where} holds {len(names)} class folders; the classes are split into meta-train, "
                "meta-validation and meta-test: give at least 3, or, where nothing is trained, "
                "type dataset.options.all_test=true"
            )
        few = max(1, round(0.2 * len(names)))
        return random_split(names, (len(names) - 2 * few, few, few), self._seed)


def _pictures(folders: Mapping[str, Path]) -> dict[str, list[Path]]:
    """Return each class's files by its name."""
    pictures = {name: pictures_in(folder) for name, folder in folders.items()}
    for name, folder in folders.items():
        if not pictures[name]:
            deeper, other = (next(kind(folder), None) for kind in (deeper_pictures, other_files))
            elsewhere = f"; '{deeper}' and others lie too deep" if deeper else ""
            elsewhere += f"; '{other.name}' is of no kind that is read" if other else ""
            raise UserError(
                f"dataset image_folder: the class folder {folder} holds no image "
                f"({', '.join(SUFFIXES[:4])} …){elsewhere}: put some there, or remove the folder"
            )
    return pictures
