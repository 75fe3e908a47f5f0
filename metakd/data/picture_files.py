"""Reading many picture files into one tensor."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from metakd.data.download import READING
from metakd.errors import UserError

__all__ = ["SUFFIXES", "pictures_in", "read_pictures"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
"""Files in a folder with other names are not looked at."""


def pictures_in(folder: Path) -> list[Path]:
    """Return the picture files that lie directly in `folder`, by name; hidden ones left out.

    Raises:
        UserError: the folder cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted(
                Path(e.path)
                for e in entries
                if e.name.lower().endswith(SUFFIXES) and not e.name.startswith(".") and e.is_file()
            )
    except OSError as error:
        raise UserError(f"the folder {folder} cannot be read ({error.strerror})") from error


def read_pictures(name: str, paths: Sequence[Path], size: int, crop: bool) -> Tensor:
    """Read pictures as RGB at `size` x `size`.

    Args:
        name: of the dataset, for the message.
        paths: of the files.
        size: height and width in pixels.
        crop: cut the middle square out of pictures that are not square; otherwise squeeze them.

    Returns:
        [n, 3, size, size] uint8.

    Raises:
        UserError: a file cannot be read; the message names it.
    """

    def read(path: Path) -> np.ndarray:
        method = Image.Resampling.BILINEAR
        try:
            with Image.open(path) as picture:
                upright = ImageOps.exif_transpose(picture).convert("RGB")
            if crop:
                small = ImageOps.fit(upright, (size, size), method)
            else:
                small = upright.resize((size, size), method)
        except READING as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(
                f"dataset {name}: the image {path} cannot be read ({reason}): repair or remove it"
            ) from error
        return np.asarray(small)

    images = torch.empty(len(paths), 3, size, size, dtype=torch.uint8)
    # Pillow lets go of the interpreter while it decodes, so threads use all cores.
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as threads:
        for i, pixels in enumerate(threads.map(read, paths)):
            images[i] = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    return images
