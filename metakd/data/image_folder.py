"""A user's own images: a folder for each class."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from metakd.data.class_examples import PreparedData
from metakd.data.class_folders import find_class_folders
from metakd.data.class_pictures import PictureSettings, read_class_pictures
from metakd.data.class_split import by_class, hold_out
from metakd.data.left_out import deeper_pictures, left_out, other_files
from metakd.data.own_classes import OwnClasses
from metakd.data.picture_files import SUFFIXES, pictures_in
from metakd.data.splits import SPLITS
from metakd.errors import UserError

__all__ = ["ImageFolder"]

_VERSION = 2  # raised whenever the same settings give other images


class _Listing(NamedTuple):
    pictures: dict[str, list[Path]]  # class name -> its files
    class_lists: dict[str, list[str]]  # split -> class names
    notes: tuple[str, ...]  # what is not used


class ImageFolder(OwnClasses):
    """Pictures in class folders, as RGB, brought to a square and scaled.

    The folder holds a folder for each class (``cats/*.jpg``, ``dogs/*.jpg`` …); or it holds
    ``train``, ``val`` and ``test`` with class folders in each. See `OwnClasses` for the splits.

    Args:
        data_root: folder of datasets; its ``image_folder`` is used where `folder` is None.
        folder: the folder with the images.
        splits: see `OwnClasses`.
        split_seed: likewise; also decides the held-out fifth of each class.
        image_size: height and width in pixels.
        all_test: every class folder is a meta-test class, wherever it lies.
        pictures: how files are read.
    """

    name = "image_folder"
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
        pictures: PictureSettings = PictureSettings(),
    ) -> None:
        place = Path(folder).expanduser() if folder else data_root / "image_folder"
        super().__init__(place, splits, split_seed, all_test)
        self._size, self._pictures = image_size or 84, pictures
        self._listed: _Listing | None = None  # when the key was last asked for

    def cache_key(self) -> str:
        """See `Dataset.cache_key`."""
        listing = self._listed = self._listing()
        settings = [listing.class_lists, listing.notes, self._seed, self._size]
        return json.dumps(["image_folder", _VERSION, settings, self._pictures.key()])

    def sources(self) -> list[Path]:
        """See `Dataset.cache_key`."""
        pictures = (self._listed or self._listing()).pictures
        return [path for name in sorted(pictures) for path in pictures[name]]

    def load(self) -> PreparedData:
        """See `Dataset.load`."""
        pictures, class_lists, notes = self._listed or self._listing()
        # Split by split, as they are dealt out: nothing has to be moved then.
        names = list(pictures)
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
            held_out=_held_out(read.labels, names, self._seed),
        )
        return replace(prepared, reading=self._pictures.reading, notes=(*notes, *read.notes))

    def _listing(self) -> _Listing:
        """Find the classes, their files and their splits; refuse what cannot be used."""
        found = find_class_folders(self.place)
        if found.by_split is not None and self._splits is not None and self.recorded_split is None:
            raise UserError(
                f"dataset.splits={self._splits}: {self.place} is split already, into train, val "
                "and test: leave out dataset.splits, or put all class folders side by side"
            )
        dealt = self._dealt(found.all_names(), found.by_split)
        if self.recorded_split is None:
            dealt = {split: sorted(names) for split, names in dealt.items()}
        class_lists, notes = self._without_lacking(
            dealt, lambda split, name: found.find(split, name) is not None
        )
        places = {n: found.place(split, n) for split in SPLITS for n in class_lists[split]}
        notes = [f"dataset image_folder: {line}" for line in notes]
        return _Listing(_pictures(places), class_lists, (*notes, *left_out(found, places)))


def _held_out(labels: Tensor, names: Sequence[str], seed: int) -> Tensor:
    """Return which examples [n] are held out, whatever the order of the classes in `names`."""
    rank = {name: i for i, name in enumerate(sorted(names))}
    by_name = torch.tensor([rank[name] for name in names])[labels]
    order = by_name.argsort(stable=True)
    held = torch.empty(len(labels), dtype=torch.bool)
    held[order] = hold_out(by_name[order], seed)
    return held


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
