"""One picture, from its file to 8-bit RGB of the size that is wanted."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import ExifTags, Image

from metakd.data.picture_depth import depth_of, undeclared_maximum
from metakd.data.picture_modes import as_rgb
from metakd.data.picture_reading import READING, Reading

__all__ = ["Decoded", "Source", "decode"]

Source = str | Path | BinaryIO | Image.Image

_HEIF = (".heic", ".heif")
_DRAFT = 2  # a JPEG is decoded at no less than this many times the size wanted
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF's orientation: what turns the picture upright."""
_LYING = frozenset({5, 6, 7, 8})
"""Orientations in which height and width change places."""


class Decoded(NamedTuple):
    """A picture.

    Attributes:
        pixels: [height, width, 3] uint8.
        more: the file holds further frames or pages.
        maximum: largest value, of 16 bits whose range is only assumed.
    """

    pixels: np.ndarray
    more: bool
    maximum: int | None


def decode(source: Source, size: tuple[int, int], reading: Reading) -> Decoded:
    """Read a picture; docs/pictures.md says what becomes of which kind.

    Args:
        source: a path, a file opened for reading bytes, or an image of Pillow's (not changed).
        size: (height, width).
        reading: how it becomes 8-bit pixels.

    Raises:
        one of `READING`: it cannot be read.
    """
    with _opened(source) as picture:
        depth = depth_of(picture)
        is_jpeg = picture.format in ("JPEG", "MPO") and picture is not source
        if not is_jpeg:
            picture.load()  # here TIFF turns itself upright, and drops the orientation
        orientation = _orientation(picture)
        wanted = (size[0], size[1]) if orientation in _LYING else (size[1], size[0])
        whole = _shrink_jpeg(picture, wanted) if is_jpeg else picture.size
        rgb = as_rgb(picture, depth, reading)
        box = _middle(whole, wanted) if reading.crop else (0.0, 0.0, *whole)
        small = rgb.resize(wanted, Image.Resampling.BILINEAR, box=box)
        if orientation in _TURNS:
            small = small.transpose(_TURNS[orientation])
        maximum = undeclared_maximum(picture, depth) if reading.white is None else None
        return Decoded(np.array(small), _has_more(picture), maximum)


@contextlib.contextmanager
def _opened(source: Source) -> Iterator[Image.Image]:
    if isinstance(source, Image.Image):
        yield source
        return
    if isinstance(source, (str, Path)) and str(source).lower().endswith(_HEIF):
        _add_heif()
    with Image.open(source) as picture:
        yield picture


def _add_heif() -> None:
    """Let Pillow read HEIC, which it does by another package.

    Raises:
        ValueError: it is not installed.
    """
    try:
        heif: Any = importlib.import_module("pillow_heif")
    except ImportError as error:
        raise ValueError("for HEIC type: pip install pillow-heif") from error
    heif.register_heif_opener()


def _orientation(picture: Image.Image) -> int:
    """Return EXIF's orientation; 1, upright, without or with damaged EXIF."""
    try:
        return int(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except READING:
        return 1


def _shrink_jpeg(picture: Image.Image, wanted: tuple[int, int]) -> tuple[float, float]:
    """Have a JPEG that is much too large decoded at a half, a quarter or an eighth of its size.

    Returns:
        (width, height) of the decoded picture, without what only fills its last column and row.
    """
    chosen = picture.draft(None, (_DRAFT * wanted[0], _DRAFT * wanted[1]))
    return picture.size if chosen is None else (chosen[1][2], chosen[1][3])


def _middle(
    whole: tuple[float, float], wanted: tuple[int, int]
) -> tuple[float, float, float, float]:
    """Return (left, top, right, bottom) of the largest middle part with the sides' ratio wanted."""
    width, height = whole
    part_width = min(width, height * wanted[0] / wanted[1])
    part_height = min(height, width * wanted[1] / wanted[0])
    left, top = (width - part_width) / 2, (height - part_height) / 2
    return left, top, min(left + part_width, width), min(top + part_height, height)


def _has_more(picture: Image.Image) -> bool:
    """Whether the file holds more frames; a camera's MPO, which keeps previews, does not count."""
    try:
        return picture.format != "MPO" and bool(getattr(picture, "is_animated", False))
    except READING:
        return False
