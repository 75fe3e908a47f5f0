"""Reading many picture files into one tensor."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from metakd.data.download import READING
from metakd.data.preprocessing import Reading
from metakd.errors import UserError

__all__ = ["SUFFIXES", "PicturesRead", "is_picture", "pictures_in", "read_picture", "read_pictures"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
"""Files in a folder with other names are not looked at."""


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
            return sorted(Path(e.path) for e in entries if is_picture(e.name) and _is_file(e))
    except OSError as error:
        raise UserError(f"the folder {folder} cannot be read ({error.strerror})") from error


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link in a circle
        return False


class PicturesRead(NamedTuple):
    """What `read_pictures` found.

    Attributes:
        images: [m, 3, size, size] uint8.
        kept: positions of the m pictures in the list of paths, ascending.
        notes: lines that the user should see.
    """

    images: Tensor
    kept: list[int]
    notes: tuple[str, ...] = ()


def read_picture(
    source: str | Path | BinaryIO | Image.Image, size: tuple[int, int], reading: Reading
) -> np.ndarray:
    """Read a picture as RGB.

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
        return _decoded(source, size, reading)
    except READING as error:
        raise UserError(
            f"the image {_name_of(source)} cannot be read ({_reason(error)}): repair or remove it"
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
        name: of the dataset, for the message.
        paths: of the files.
        size: height and width in pixels.
        reading: how they become 8-bit pixels.
        unreadable: what becomes of a file that cannot be read: `refuse` or `skip`.

    Raises:
        UserError: a file cannot be read; the message names it.
    """

    def read(path: Path) -> np.ndarray:
        try:
            return _decoded(path, (size, size), reading)
        except READING as error:
            raise UserError(
                f"dataset {name}: the image {path} cannot be read ({_reason(error)}): repair or "
                "remove it"
            ) from error

    images = torch.empty(len(paths), 3, size, size, dtype=torch.uint8)
    # Pillow lets go of the interpreter while it decodes, so threads use all cores.
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as threads:
        for i, pixels in enumerate(threads.map(read, paths)):
            images[i] = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    return PicturesRead(images, list(range(len(paths))))


def _decoded(
    source: str | Path | BinaryIO | Image.Image, size: tuple[int, int], reading: Reading
) -> np.ndarray:
    """Return the picture [height, width, 3] uint8; raises one of `READING`."""
    height, width = size
    method = Image.Resampling.BILINEAR
    if isinstance(source, Image.Image):
        upright = ImageOps.exif_transpose(source).convert("RGB")
    else:
        with Image.open(source) as picture:
            upright = ImageOps.exif_transpose(picture).convert("RGB")
    if reading.crop:
        return np.asarray(ImageOps.fit(upright, (width, height), method))
    return np.asarray(upright.resize((width, height), method))


def _name_of(source: str | Path | BinaryIO | Image.Image) -> str:
    if isinstance(source, (str, Path)):
        return str(source)
    return str(getattr(source, "filename", "") or getattr(source, "name", "") or "(no file)")


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
