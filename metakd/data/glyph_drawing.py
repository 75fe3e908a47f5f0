"""Letters drawn large and size-normalised, and which of them look the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from metakd.data.glyph_fonts import FACES, REFERENCE_FACES, SHEAR, Letter
from metakd.errors import UserError

__all__ = ["CANVAS", "INK_BOX", "Drawings", "distances", "draw_letters", "look_alikes"]

CANVAS = 64
"""Height and width of a drawing in pixels."""

INK_BOX = 44
"""The longer side of the ink; the rest is margin, which later slant and shift need."""

_FONT_SIZE = 96


@dataclass(frozen=True)
class Drawings:
    """Each letter in each of its faces, in the order of letters and of their faces.

    Attributes:
        images: uint8 [drawings, CANVAS, CANVAS], ink 255.
        letter: int64 [drawings], position in the list of letters.
        face: int64 [drawings], position in `FACES`.
    """

    images: NDArray[np.uint8]
    letter: NDArray[np.int64]
    face: NDArray[np.int64]


def draw_letters(folder: Path, letters: Sequence[Letter]) -> Drawings:
    """Draw every letter in every face it has, scaled so that the longer side is `INK_BOX`.

    Raises:
        UserError: a font file cannot be read, or draws nothing for a letter that it lists.
    """
    pairs = [(number, face) for number, letter in enumerate(letters) for face in letter.faces]
    row = {pair: position for position, pair in enumerate(pairs)}
    images = np.zeros((len(pairs), CANVAS, CANVAS), dtype=np.uint8)
    for position, face in enumerate(FACES):
        try:
            # The basic layout, because the other one is not in every build of Pillow.
            font = ImageFont.truetype(
                str(folder / face.file), _FONT_SIZE, layout_engine=ImageFont.Layout.BASIC
            )
        except OSError as error:
            raise UserError(
                f"dataset=glyphs: the font {folder / face.file} cannot be read ({error}); "
                "reinstall matplotlib, which ships it"
            ) from error
        for number, letter in enumerate(letters):
            if position not in letter.faces:
                continue
            drawn = _draw(font, letter.character, face.sheared)
            box = drawn.getbbox()
            if box is None:
                raise UserError(
                    f"dataset=glyphs: {face.file} draws nothing for U+{ord(letter.character):04X};"
                    " the font files are damaged: reinstall matplotlib, which ships them"
                )
            _place(drawn, box, images[row[number, position]])
    return Drawings(
        images=images,
        letter=np.array([number for number, _ in pairs], dtype=np.int64),
        face=np.array([face for _, face in pairs], dtype=np.int64),
    )


def _draw(font: ImageFont.FreeTypeFont, character: str, sheared: bool) -> Image.Image:
    left, top, right, bottom = (int(edge) for edge in font.getbbox(character))
    width, height = max(1, right - left), max(1, bottom - top)
    image = Image.new("L", (width, height))
    ImageDraw.Draw(image).text((-left, -top), character, fill=255, font=font)
    if sheared:
        # Output (x, y) is read at (x + SHEAR * y - room, y): the top goes to the right.
        room = int(SHEAR * height) + 1
        image = image.transform(
            (width + room, height),
            Image.Transform.AFFINE,
            (1.0, SHEAR, -float(room), 0.0, 1.0, 0.0),
            Image.Resampling.BILINEAR,
        )
    return image


def _place(drawn: Image.Image, box: tuple[int, int, int, int], canvas: NDArray[np.uint8]) -> None:
    """Scale the ink inside `box` to `INK_BOX` and write it into the middle of `canvas`."""
    width, height = box[2] - box[0], box[3] - box[1]
    scale = INK_BOX / max(width, height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    ink = np.asarray(drawn.resize(size, Image.Resampling.BOX, box=box))
    top, left = (CANVAS - size[1]) // 2, (CANVAS - size[0]) // 2
    canvas[top : top + size[1], left : left + size[0]] = ink


def _blurred(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Half the size and slightly blurred, so that a pixel's shift changes little."""
    small = images.astype(np.float64).reshape(len(images), CANVAS // 2, 2, CANVAS // 2, 2)
    small = small.mean(axis=(2, 4))
    for axis in (1, 2):
        small = 0.5 * small + 0.25 * (np.roll(small, 1, axis) + np.roll(small, -1, axis))
    return small


def distances(drawings: Drawings, face: int) -> NDArray[np.float64]:
    """Return 1 - cosine between the blurred drawings of any two letters in a face.

    Args:
        drawings: of all letters.
        face: position in `FACES`; every letter must have it.

    Returns:
        [letters, letters]; 0 where two letters coincide, at most 1.
    """
    vectors = _blurred(drawings.images[drawings.face == face])
    vectors = vectors.reshape(len(vectors), -1)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return 1.0 - vectors @ vectors.T


def look_alikes(drawings: Drawings, threshold: float) -> NDArray[np.int64]:
    """Group letters whose drawings nearly coincide in both reference faces.

    Groups are connected: two letters in different groups are never within `threshold` of each
    other, which is what keeps look-alikes of training letters out of the test scripts.

    Returns:
        int64 [letters], for each letter the first letter of its group.
    """
    apart = np.max([distances(drawings, face) for face in REFERENCE_FACES], axis=0)
    first = np.arange(len(apart))
    for one, other in np.argwhere(np.triu(apart < threshold, 1)):
        low, high = sorted((first[one], first[other]))
        first[first == high] = low
    return first
