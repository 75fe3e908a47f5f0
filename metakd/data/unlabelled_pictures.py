"""Picture files that nobody has labelled: a folder, and all that lies below it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import torch

from metakd.data.class_examples import ClassExamples, PreparedData
from metakd.data.class_names import class_name
from metakd.data.left_out import deeper_pictures
from metakd.data.picture_files import SUFFIXES, pictures_in, read_pictures
from metakd.data.picture_preprocessing import PicturePreprocessing
from metakd.data.unlabelled import SETTING
from metakd.data.unreadable_pictures import kinds_read
from metakd.errors import UserError

__all__ = ["UnlabelledPictures"]

_VERSION = 2  # raised whenever the same files give other images


class UnlabelledPictures:
    """The pictures of a folder and of its subfolders; a folder is a class of meta-train.

    Files that cannot be read are left out with a note.

    Args:
        place: the folder.
        like: size and colour, and how files are read.

    Raises:
        UserError: no such folder, or no picture in it.
    """

    kind = "classification"
    any_size: ClassVar[bool] = True

    def __init__(self, place: Path, like: PicturePreprocessing) -> None:
        if not place.is_dir():
            raise UserError(f"{SETTING}: '{place}' is no folder, neither `train` nor a dataset")
        self._place, self._reading = place, like.reading
        self._size = max(like.height, like.width)
        self._paths = [*pictures_in(place), *deeper_pictures(place)]
        if not self._paths:
            raise UserError(f"{SETTING}: '{place}' holds no picture ({', '.join(SUFFIXES[:4])} …)")

    def cache_key(self) -> str:
        """See `Dataset.cache_key`."""
        r = self._reading
        # What a class is called depends on where its folder is looked at from.
        classes = sorted({self._folder(path) for path in self._paths})
        settings = [self._size, r.crop, r.background, r.white, *kinds_read(), classes]
        return json.dumps(["unlabelled", _VERSION, *settings])

    def _folder(self, path: Path) -> str:
        """Return the folders that a picture lies in, the place itself first."""
        inner = path.parent.relative_to(self._place)
        return "/".join(map(class_name, (self._place.resolve().name, *inner.parts)))

    def sources(self) -> list[Path]:
        """See `Dataset.cache_key`."""
        return self._paths

    def load(self) -> PreparedData:
        """See `Dataset.load`."""
        name = f"{self._place.name}"
        read = read_pictures(name, self._paths, self._size, self._reading, unreadable="skip")
        if not read.kept:
            raise UserError(f"{SETTING}: no picture in '{self._place}' can be read")
        folders = [self._folder(self._paths[i]) for i in read.kept]
        names = sorted({*folders})
        number = {folder: i for i, folder in enumerate(names)}
        whole = ClassExamples(
            read.images,
            torch.tensor([number[folder] for folder in folders]),
            tuple(names),
            torch.zeros(len(names), dtype=torch.int64),
            torch.zeros(len(folders), dtype=torch.bool),
        )
        empty = whole.without(names)
        notes = tuple(f"{SETTING}: {line}" for line in read.notes)
        splits = {"train": whole, "validate": empty, "test": empty}
        return PreparedData(splits, name, self._reading, notes)
