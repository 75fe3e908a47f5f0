"""Reading picture files: one for one network, many for a dataset."""

from __future__ import annotations

import hashlib
import math
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from metakd.data.available_memory import available_memory
from metakd.data.class_names import class_name
from metakd.data.on_disk import is_large, room, taken, touched
from metakd.data.picture_decoding import Decoded, Source, decode
from metakd.data.picture_reading import READING, Reading
from metakd.data.reading_progress import reading_progress
from metakd.data.unreadable_pictures import left_out, reason_of, refusal
from metakd.errors import UserError

__all__ = [
    "SUFFIXES",
    "PicturesRead",
    "is_file",
    "is_picture",
    "pictures_in",
    "read_picture",
    "read_pictures",
]

SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".gif", ".bmp", ".avif", ".heic", ".heif"),
    *(".jfif", ".jpe", ".mpo", ".apng", ".jp2", ".j2k", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
)
"""Names of files that are taken for pictures."""

_GROUP = 32  # pictures that a thread takes at a time
_LOOK = np.dtype([("plain", bool), ("digest", "V16")])


class PicturesRead(NamedTuple):
    """What `read_pictures` found.

    Attributes:
        images: [m, 3, size, size] uint8.
        kept: positions of the m pictures in the list of paths, ascending.
        wrong: why each of the others cannot be read, by position.
        notes: lines that the user should see.
        looks: [m] of a bool `plain`, whether a picture has one single colour, and of `digest`, 16
            bytes that are the same for equal pixels.
    """

    images: Tensor
    kept: list[int]
    wrong: dict[int, str]
    notes: tuple[str, ...]
    looks: np.ndarray


def is_picture(name: str) -> bool:
    """Tell whether a file of this name is taken for a picture; hidden ones are not."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def pictures_in(folder: Path) -> list[Path]:
    """Return the picture files that lie directly in `folder`, by name; hidden ones left out.

    Raises:
        UserError: the folder cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            names = sorted(e.name for e in entries if is_picture(e.name) and is_file(e))
    except OSError as error:
        raise UserError(f"the folder {folder} cannot be read ({error.strerror})") from error
    return [folder / name for name in names]


def is_file(entry: os.DirEntry[str]) -> bool:
    """Tell whether an entry of a folder is a file, or a link to one."""
    try:
        return entry.is_file()
    except OSError:  # a link in a circle
        return False


def read_picture(source: Source, size: tuple[int, int], reading: Reading) -> np.ndarray:
    """Read a picture as RGB; docs/pictures.md says what becomes of which kind.

    Args:
        source: a path, a file opened for reading bytes, or an image of Pillow's (not changed).
        size: (height, width) in pixels.
        reading: how it becomes 8-bit pixels.

    Returns:
        [height, width, 3] uint8.

    Raises:
        UserError: it cannot be read; the message names the file.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return decode(source, size, reading).pixels
    except READING as error:
        path = Path(source) if isinstance(source, (str, Path)) else None
        raise UserError(
            f"the image {_name_of(source)} cannot be read ({reason_of(error, path)})"
        ) from error


def read_pictures(
    name: str,
    paths: Sequence[Path],
    size: int,
    reading: Reading,
    *,
    unreadable: str = "refuse",
) -> PicturesRead:
    """Read picture files as RGB at `size` x `size`.

    Args:
        name: of the dataset, for messages.
        paths: of the files.
        size: height and width in pixels.
        reading: how they become 8-bit pixels.
        unreadable: `refuse` files that cannot be read, or `skip` them with a note.

    Raises:
        UserError: files cannot be read, and the message names them; there is too little memory;
            all pictures of 16 bits look like ones of 12 that do not say so.
    """
    images = _room(name, len(paths), size)
    pixels = images.numpy()
    wrong: dict[int, str] = {}
    several: list[Path] = []
    maxima: list[int] = []
    looks = np.zeros(len(paths), dtype=_LOOK)

    def read(start: int) -> list[Decoded | str]:
        found: list[Decoded | str] = []
        for i, path in enumerate(paths[start : start + _GROUP], start):
            try:
                decoded = decode(path, (size, size), reading)
            except READING as error:
                found.append(reason_of(error, path))
                continue
            pixels[i] = decoded.pixels.transpose(2, 0, 1)
            looks[i] = _look(pixels[i])
            found.append(decoded._replace(pixels=pixels[i]))
        return found

    # Pillow lets go of the interpreter while it decodes, so threads use all cores. They take
    # groups: handing over takes as long as decoding a small picture.
    threads = ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1))
    with ExitStack() as around:
        around.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")  # what Pillow has to say of a file that it can read
        around.callback(threads.shutdown, cancel_futures=True)
        progress = around.enter_context(reading_progress(len(paths)))
        starts = range(0, len(paths), _GROUP)
        for start, group in zip(starts, threads.map(read, starts), strict=True):
            for i, found in enumerate(group, start):
                if isinstance(found, str):
                    wrong[i] = found
                    continue
                if found.more:
                    several.append(paths[i])
                if found.maximum is not None:
                    maxima.append(found.maximum)
            touched(images, len(group) * pixels[0].nbytes)
            progress.advance(len(group))
    notes = []
    if wrong:
        by_path = {paths[i]: reason for i, reason in wrong.items()}
        if unreadable != "skip":
            raise UserError(f"dataset {name}: {refusal(by_path)}")
        notes.append(left_out(by_path))
    if maxima and 0 < max(maxima) < 2**12:
        raise UserError(
            f"dataset {name}: {len(maxima)} pictures of 16 bits do not say which value is white, "
            f"and none has a value above {max(maxima)}: set dataset.options.white=4095 if they "
            "have 12 bits, or dataset.options.white=65535 if they are as dark as that"
        )
    if several:
        notes.append(
            f"of {_files(len(several))} with several frames or pages the first is taken "
            f"({class_name(str(several[0]))})"
        )
    kept = [i for i in range(len(paths)) if i not in wrong]
    if wrong:
        images = taken(images, torch.tensor(kept, dtype=torch.int64), keep=True)
    return PicturesRead(images, kept, wrong, tuple(notes), looks[kept])


def _look(pixels: np.ndarray) -> tuple[bool, bytes]:
    """Return whether [channels, height, width] is of one colour, and a hash of it."""
    first = pixels[:, :1, :1]
    # Nearly every picture is told by its middle row.
    plain = bool(
        (pixels[:, pixels.shape[1] // 2] == first[..., 0]).all() and (pixels == first).all()
    )
    return plain, hashlib.blake2b(pixels.data, digest_size=16).digest()


def _files(count: int) -> str:
    return "an image" if count == 1 else f"{count} images"


def _room(name: str, count: int, size: int) -> Tensor:
    """Return memory for `count` pictures.

    Raises:
        UserError: there is not enough, also for dealing them out to the parts afterwards.
    """
    shape = (count, 3, size, size)
    needed = 2 * math.prod(shape)
    available = available_memory(torch.device("cpu"))
    if available is not None and needed > available and not is_large(math.prod(shape)):
        raise _too_large(name, count, size, f"{available / 2**30:.3g} GiB are free")
    try:
        return room(shape)
    except (RuntimeError, MemoryError) as error:
        raise _too_large(name, count, size, "there is not as much") from error


def _too_large(name: str, count: int, size: int, why: str) -> UserError:
    needed = 2 * count * 3 * size * size
    return UserError(
        f"dataset {name}: {count} pictures of {size} x {size} pixels need {needed / 2**30:.3g} GiB "
        f"of memory while they are prepared, and {why}: set a smaller dataset.image_size, "
        "give fewer pictures, or set a smaller dataset.in_memory (they are then kept in a file)"
    )


def _name_of(source: Source) -> str:
    name = source
    if not isinstance(source, (str, Path)):
        name = getattr(source, "filename", "") or getattr(source, "name", "") or "(no file)"
    return class_name(str(name))
