"""Pictures with more than 8 bits: which value is white, and what becomes of the others."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

__all__ = ["DEEP_MODES", "Depth", "check_deep_colour", "depth_of", "grey_of", "undeclared_maximum"]

DEEP_MODES = frozenset({"I", "F", "I;16", "I;16B", "I;16L", "I;16N"})
"""Pillow's modes of more than 8 bits; all of them are grey."""

_FULL = 65535.0  # white of 16 bits
_BITS, _PHOTOMETRIC, _MAX_SAMPLE, _FORMAT = 258, 262, 281, 339  # tags of TIFF
_CUSTOMARY = (1.0, 255.0, 4095.0, 65535.0)


@dataclass(frozen=True)
class Depth:
    """What a file says of its values beyond what Pillow hands on.

    Attributes:
        bits: of a sample, as stored; None: not known.
        white: value that is white.
        largest: value of which it is doubtful whether it is white or the largest that occurs
            (TIFF's MaxSampleValue may be either).
        significant: bits of a sample before it was stored with more of them (PNG's sBIT).
        inverted: white is 0 (TIFF).
        signed: samples have a sign (TIFF).
        transparent: grey value that is transparent (PNG with 16 bits).
    """

    bits: int | None = None
    white: float | None = None
    largest: int | None = None
    significant: int | None = None
    inverted: bool = False
    signed: bool = False
    transparent: int | None = None


def depth_of(picture: Image.Image) -> Depth:
    """Return what the file of `picture` says; to be asked before Pillow reads the pixels."""
    if picture.format == "TIFF":
        return _of_tiff(getattr(picture, "tag_v2", {}))
    if picture.format == "PNG":
        return _of_png(picture)
    if picture.format in ("PPM", "JPEG2000") and picture.mode in DEEP_MODES - {"F"}:
        return Depth(bits=16, white=_FULL)  # whatever the file's own range, Pillow widens it
    return Depth()


def undeclared_maximum(picture: Image.Image, depth: Depth) -> int | None:
    """Return the largest value of a picture of 16 bits whose file says nothing of its range."""
    if depth.white is not None or depth.significant is not None:
        return None
    if picture.mode in DEEP_MODES - {"F", "I"} or (picture.mode, picture.format) == ("I", "PNG"):
        return int(np.asarray(picture).max())
    if depth.bits == 16 and picture.mode not in DEEP_MODES:
        return 256 * int(max(high for _, high in _extrema(picture))) + 255
    return None


def _of_tiff(tags: Any) -> Depth:
    def first(tag: int) -> int | None:
        value = tags.get(tag)
        value = value[0] if isinstance(value, tuple) and value else value
        return int(value) if isinstance(value, (int, float)) else None

    bits, largest, white = first(_BITS), first(_MAX_SAMPLE), None
    if largest is not None and not 0 < largest < 2**15:
        largest = None  # all 16 bits are in use
    if bits is not None and 8 < bits < 16:
        white = 2**bits - 1
    elif bits == 16 and largest is not None and largest & (largest + 1) == 0:
        white = largest  # 2^n - 1: of the range, not just of the values that occur
    return Depth(
        bits=bits,
        white=None if white is None else float(white),
        largest=largest if white is None else None,
        inverted=first(_PHOTOMETRIC) == 0,
        signed=first(_FORMAT) == 2,
    )


def _of_png(picture: Image.Image) -> Depth:
    chunks = _png_chunks(getattr(picture, "fp", None))
    header = chunks.get(b"IHDR", b"")
    bits = header[8] if len(header) == 13 else None
    significant = min(chunks.get(b"sBIT", b""), default=None)
    transparent = chunks.get(b"tRNS", b"")
    return Depth(
        bits=bits,
        significant=significant if bits == 16 and significant and significant < 16 else None,
        transparent=int.from_bytes(transparent, "big") if len(transparent) == 2 else None,
    )


def _png_chunks(file: Any) -> dict[bytes, bytes]:
    """Return the short chunks before the pixels; the file stays where it was."""
    found: dict[bytes, bytes] = {}
    if file is None:
        return found
    at = file.tell()
    try:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, name = struct.unpack(">I4s", head)
            if name in (b"IDAT", b"IEND"):
                break
            if name in (b"IHDR", b"sBIT", b"tRNS") and length <= 256:
                found[name] = file.read(length)
                file.seek(4, 1)
            else:
                file.seek(length + 4, 1)
    finally:
        file.seek(at)
    return found


def grey_of(
    picture: Image.Image, depth: Depth, white: float | None
) -> tuple[Image.Image, Image.Image | None]:
    """Return a picture of one of `DEEP_MODES` as L, and its alpha as L or None.

    Args:
        picture: the picture.
        depth: what its file says.
        white: value of white, as set; None: told by the file.

    Raises:
        ValueError: it is not known which value is white, or values are outside 0 … white.
    """
    values = np.asarray(picture)
    alpha = None
    if depth.transparent is not None:
        alpha = Image.fromarray(((values != depth.transparent) * 255).astype(np.uint8))
    low, high = float(values.min()), float(values.max())
    if not np.isfinite(low) or not np.isfinite(high):
        raise ValueError("some of its values are no finite numbers")
    white = white or _white(picture, values, depth)
    slack = 0.0 if white is None else white / 510  # half a grey level: rounding, a filter's ringing
    if white is None or low < -slack or high > white + slack:
        raise ValueError(_range_unknown(low, high, white))
    grey = values.astype(np.float64) * (255.0 / white)
    if depth.inverted:
        grey = 255.0 - grey
    return Image.fromarray(np.floor(grey + 0.5).clip(0, 255).astype(np.uint8)), alpha


def check_deep_colour(picture: Image.Image, depth: Depth, white: float | None) -> None:
    """Refuse a picture in 8-bit mode that Pillow has not read rightly.

    Of 16 bits a channel in colour Pillow keeps the upper 8: right where white is 65535, and next
    to nothing where only the lower 12 are used.

    Raises:
        ValueError: saying what is wrong.
    """
    if depth.signed:
        raise ValueError("its values have a sign: save it with values from 0")
    if depth.bits != 16:
        return
    named = white or depth.white or depth.largest
    significant = depth.significant
    if named is None and significant is not None:
        highest = max(high for _, high in _extrema(picture))
        # Widened to 16 bits, as PNG demands, or left as they were? Only bright values tell.
        if 0 < highest < 2 ** max(significant - 8, 0):
            named = 2.0**significant - 1
    if named is not None and named != _FULL:
        raise ValueError(
            f"it has 16 bits for each colour, of which the upper 8 are read; with white at "
            f"{named:g} they hold next to nothing: save it with 8 bits for each colour"
        )


def _extrema(picture: Image.Image) -> list[tuple[float, float]]:
    found: Any = picture.getextrema()
    return list(found) if isinstance(found[0], tuple) else [found]


def _white(picture: Image.Image, values: np.ndarray, depth: Depth) -> float | None:
    """Return the value of white as far as the file tells; None if it does not."""
    if picture.mode == "F":
        return 1.0
    if depth.white is not None:
        return depth.white
    if picture.mode == "I" and picture.format != "PNG":  # older versions of Pillow
        return None
    if depth.largest is not None:
        raise ValueError(
            f"its tag MaxSampleValue is {depth.largest}, which may be white or just the largest "
            f"value in it; dataset.options.white={_likely(depth.largest):g} or another says which"
        )
    if depth.significant is not None and values.max() > 0:
        bits = depth.significant
        if values.max() < 2**bits:
            if _is_widened(values, bits):
                raise ValueError(
                    f"its tag sBIT tells of {bits} bits, and its values up to {values.max()} may "
                    f"be those or 16 bits; dataset.options.white={2**bits - 1} or 65535 says which"
                )
            return 2.0**bits - 1
    return _FULL


def _is_widened(values: np.ndarray, bits: int) -> bool:
    """Whether `values` can be ones of `bits` bits widened to 16, by zeros or by repetition."""
    head = values.astype(np.int64) >> (16 - bits)
    repeated, place = np.zeros_like(head), 16 - bits
    while place > -bits:
        repeated |= head << place if place >= 0 else head >> -place
        place -= bits
    return bool((values == head << (16 - bits)).all() or (values == repeated).all())


def _range_unknown(low: float, high: float, white: float | None) -> str:
    values = f"its values go from {low:g} to {high:g}"
    if low < 0:
        return f"{values}, and black is 0: save it with values from 0"
    known = "it does not say which is white" if white is None else f"white is {white:g}"
    return f"{values}, and {known}; dataset.options.white={_likely(high):g} would fit"


def _likely(high: float) -> float:
    return next((white for white in _CUSTOMARY if high <= white), high)
