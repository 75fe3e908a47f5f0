"""A user's own images: a folder for each class."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metakd.data.class_examples import PreparedData
from metakd.data.class_folders import ClassFolders, find_class_folders
from metakd.data.class_pictures import PictureSettings, read_class_pictures
from metakd.data.class_split import by_class, hold_out
from metakd.data.left_out import deeper_pictures, left_out, other_files
from metakd.data.own_classes import OwnClasses, doubtful_names
from metakd.data.picture_files import SUFFIXES, pictures_in
from metakd.data.splits import SPLITS
from metakd.errors import UserError, nearest

__all__ = ["ImageFolder"]

_VERSION = 2  # raised whenever the same settings give other images


class _Listing(NamedTuple):
    pictures: dict[str, list[Path]]  # class name -> its files
    class_lists: dict[str, list[str]]  # split -> class names
    notes: tuple[str, ...]  # what is not used
    tests: dict[str, list[Path]]  # class name -> its test files, where a folder holds them


class ImageFolder(OwnClasses):
    """Pictures in class folders, as RGB, brought to a square and scaled.

    The folder holds a folder for each class (``cats/*.jpg``, ``dogs/*.jpg`` …); or it holds
    ``train``, ``val`` and ``test`` with class folders in each. See `OwnClasses` for the splits.
    Where it is taken as a whole dataset (`by_examples`), these folders hold the same classes, and
    held out are the pictures of ``test``, or, without that, of ``val``.

    Args:
        data_root: folder of datasets; its ``image_folder`` is used where `folder` is None.
        folder: the folder with the images.
        splits: see `OwnClasses`.
        split_seed: likewise; also decides the held-out fifth of each class.
        image_size: height and width in pixels.
        all_test: every class folder is a meta-test class, wherever it lies.
        pictures: how files are read.

    Attributes:
        by_examples: set after construction: all classes are in the split `train`, and only examples
            are held out.
    """

    name = "image_folder"
    remedy = (
        ": type task=classes to learn them as one task, or put all class folders side by side, "
        "without train, val and test"
    )
    any_size = True
    """Pictures are read at whatever size is asked for."""
    by_examples = False

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
        settings: list[Any] = [listing.class_lists, listing.notes, self._seed, self._size]
        if self.by_examples:
            settings.append(sorted(listing.tests))
        return json.dumps(["image_folder", _VERSION, settings, self._pictures.key()])

    def sources(self) -> list[Path]:
        """See `Dataset.cache_key`."""
        listing = self._listed or self._listing()
        of = (listing.pictures, listing.tests)
        return [path for pictures in of for name in sorted(pictures) for path in pictures[name]]

    def load(self) -> PreparedData:
        """See `Dataset.load`."""
        pictures, class_lists, notes, tests = self._listed or self._listing()
        # Split by split, as they are dealt out: nothing has to be moved then.
        names = list(pictures)
        folders = [*pictures.items(), *tests.items()]
        paths = [path for _, files in folders for path in files]
        counts = torch.tensor([len(files) for _, files in folders])
        labels = torch.arange(len(folders)).repeat_interleave(counts)
        called = [name for name, _ in folders]
        read = read_class_pictures(
            "image_folder", paths, labels, called, self._size, self._pictures
        )
        classes = torch.tensor([names.index(name) for name in called])[read.labels]
        held_out = read.labels >= len(names)
        prepared = by_class(
            "image_folder",
            read.images,
            classes,
            names,
            class_lists,
            held_out=held_out if tests else _held_out(classes, names, self._seed),
        )
        return replace(prepared, reading=self._pictures.reading, notes=(*notes, *read.notes))

    def _listing(self) -> _Listing:
        """Find the classes, their files and their splits; refuse what cannot be used."""
        found = find_class_folders(self.place)
        if self.by_examples:
            return self._listed_by_examples(found)
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
        notes += doubtful_names(places)
        notes = [f"dataset image_folder: {line}" for line in notes]
        return _Listing(_pictures(places), class_lists, (*notes, *left_out(found, places)), {})

    def _listed_by_examples(self, found: ClassFolders) -> _Listing:
        """Find the files of each class, and those of folders that hold test pictures."""
        where = f"dataset image_folder: {self.place}"
        splits = found.by_split or {"train": found.side_by_side}
        held = next((split for split in ("test", "validate") if splits.get(split)), "")
        learned = [folders for split, folders in splits.items() if split != held and folders]
        names = sorted({name for folders in learned for name in folders})
        if len(names) < 2:
            raise UserError(f"{where} holds {len(names)} classes to train on: give at least 2")
        tests = _pictures(dict(sorted(splits.get(held, {}).items())))
        for name in [name for name in tests if name not in names]:
            raise UserError(
                f"{where}: class '{name}' has test pictures and none to train on: add some, or "
                f"leave it out.{nearest(name, names)}"
            )
        pictures: dict[str, list[Path]] = {name: [] for name in names}
        for folders in learned:
            for name, files in _pictures(folders).items():
                pictures[name] += files
        places = {f"{s}/{name}": path for s, own in splits.items() for name, path in own.items()}
        doubts = [f"dataset image_folder: {line}" for line in doubtful_names(names)]
        notes = (*doubts, *left_out(found, places))
        if len(learned) > 1:
            notes = (
                *notes,
                f"{where}: the pictures of 'val' are training pictures, of which "
                "task.validate_share are kept for validation",
            )
        return _Listing(pictures, {"train": names, "validate": [], "test": []}, notes, tests)


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
