"""Reading the pictures of classes, with what there is to say of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from metakd.data.class_names import class_name
from metakd.data.picture_files import read_pictures
from metakd.data.picture_reading import Reading
from metakd.data.unreadable_pictures import kinds_read
from metakd.errors import UserError, check_word

__all__ = ["ClassPictures", "PictureSettings", "read_class_pictures"]

_UNREADABLE = ("refuse", "skip")


@dataclass(frozen=True)
class PictureSettings:
    """The options of every dataset of picture files.

    Attributes:
        crop: cut the middle square out of a picture that is not square; otherwise squeeze it.
        background: grey level (0 … 255) under transparent pixels.
        white: value of white in pictures of more than 8 bits; None: told by each file.
        unreadable: `refuse` pictures that cannot be read, or `skip` them.

    Raises:
        UserError: a value that is none.
    """

    crop: bool = True
    background: int = 255
    white: float | None = None
    unreadable: str = "refuse"

    def __post_init__(self) -> None:
        option, white = "dataset.options", self.white
        if not isinstance(self.crop, bool):
            raise UserError(
                f"{option}.crop={self.crop}: type true (cut out the middle square) or false "
                "(squeeze)"
            )
        if isinstance(self.background, bool) or self.background not in range(256):
            raise UserError(
                f"{option}.background={self.background}: give a grey level from 0 (black) to 255 "
                "(white)"
            )
        number = isinstance(white, (int, float)) and not isinstance(white, bool)
        if white is not None and not (number and 0 < white < float("inf")):
            raise UserError(
                f"{option}.white={white}: give the value that is white, such as 4095 for 12 bits, "
                "or null (told by each file)"
            )
        check_word(f"{option}.unreadable", self.unreadable, _UNREADABLE)

    @property
    def reading(self) -> Reading:
        """How a file becomes 8-bit pixels."""
        white = None if self.white is None else float(self.white)
        return Reading(crop=self.crop, background=int(self.background), white=white)

    def key(self) -> list[Any]:
        """Return what decides the pixels, for a cache's key."""
        r = self.reading
        found = [r.crop, r.background, r.white, self.unreadable]
        # What is left out depends on what this machine can read.
        return [*found, *kinds_read()] if self.unreadable == "skip" else found


class ClassPictures(NamedTuple):
    """Pictures that were read.

    Attributes:
        images: [m, 3, size, size] uint8.
        labels: [m] int64.
        notes: lines that the user should see.
    """

    images: Tensor
    labels: Tensor
    notes: tuple[str, ...]


def read_class_pictures(
    name: str,
    paths: Sequence[Path],
    labels: Tensor,
    class_names: Sequence[str],
    size: int,
    settings: PictureSettings,
) -> ClassPictures:
    """Read pictures of classes as RGB at `size` x `size`; those that are skipped have no label.

    Args:
        name: of the dataset, for messages.
        paths: of the files.
        labels: [n] int64, the class of each.
        class_names: by label.
        size: height and width in pixels.
        settings: how files are read.

    Raises:
        UserError: as `read_pictures`, or no picture of a class can be read.
    """
    unreadable = settings.unreadable
    read = read_pictures(name, paths, size, settings.reading, unreadable=unreadable)
    kept = labels[read.kept]
    empty = (torch.bincount(kept, minlength=len(class_names)) == 0) & (
        torch.bincount(labels, minlength=len(class_names)) > 0
    )
    if bool(empty.any()):
        which = int(empty.nonzero()[0])
        first = int((labels == which).nonzero()[0])
        raise UserError(
            f"dataset {name}: no image of class '{class_names[which]}' can be read (such as "
            f"{class_name(str(paths[first]))}: {read.wrong[first]}): repair some, or remove the "
            "class"
        )
    files = [paths[i] for i in read.kept]
    notes = (*read.notes, *_doubtful(read.looks, kept, class_names, files))
    return ClassPictures(read.images, kept, tuple(f"dataset {name}: {line}" for line in notes))


def _doubtful(
    looks: np.ndarray, labels: Tensor, class_names: Sequence[str], paths: Sequence[Path]
) -> list[str]:
    """Return a line each for pictures of one single colour, and for equal ones.

    Both are what a wrong file format, a failed download or a copy in a wrong folder looks like.
    """
    notes = []
    plain = looks["plain"]
    if plain.any():
        first = class_name(str(paths[int(plain.argmax())]))
        notes.append(
            f"{_count(int(plain.sum()), 'picture is', 'pictures are')} of one single colour "
            f"({first}): is that what you see in the file?"
        )
    of_class = labels.tolist()
    first_of: dict[bytes, int] = {}
    again: dict[int, int] = {}  # picture -> the first of its class that it equals
    tested: dict[int, int] = {}  # picture of a test folder -> the first one learned that it equals
    elsewhere: dict[int, int] = {}  # first of equal pictures -> one of another class
    for i, digest in enumerate(looks["digest"].tolist()):
        one = i if plain[i] else first_of.setdefault(digest, i)
        if one == i:
            continue
        if of_class[i] == of_class[one]:
            again[i] = one
        elif class_names[of_class[i]] == class_names[of_class[one]]:
            tested[i] = one
        else:
            elsewhere.setdefault(one, i)
    if again:
        notes.append(
            f"{_count(len(again), 'picture equals', 'pictures equal')} another of the class"
            f"{_example(again, paths)}: a task may show a picture and ask about it; keep one of "
            "each"
        )
    if tested:
        notes.append(
            f"{_count(len(tested), 'test picture is', 'test pictures are')} among those of "
            f"training{_example(tested, paths)}: leave each in one folder"
        )
    if elsewhere:
        notes.append(
            f"{_count(len(elsewhere), 'picture lies', 'pictures lie')} in more than one class"
            f"{_example(elsewhere, paths)}: leave each in one class"
        )
    return notes


def _example(pairs: Mapping[int, int], paths: Sequence[Path]) -> str:
    """Return the first of pairs of equal pictures, in brackets."""
    one, other = (class_name(str(paths[i])) for i in sorted(next(iter(sorted(pairs.items())))))
    return f" ({one} and {other} are equal, pixel for pixel)"


def _count(number: int, one: str, more: str) -> str:
    return f"{number} {one if number == 1 else more}"
