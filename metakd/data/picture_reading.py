"""How a picture file is read, and what reading raises.

No torch here, nor in what only decodes pictures: `metakd export` copies these files into a bundle.
"""

from __future__ import annotations

import lzma
import math
import struct
import zipfile
import zlib
from dataclasses import dataclass

from PIL import Image

__all__ = ["READING", "Reading"]

READING: tuple[type[Exception], ...] = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    SyntaxError,
    MemoryError,
    RuntimeError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    Image.DecompressionBombError,
)
"""What Pillow, NumPy and the archive formats raise for damaged files; only around reading."""


@dataclass(frozen=True)
class Reading:
    """How a picture file becomes 8-bit pixels.

    Attributes:
        crop: cut the middle square out of a picture that is not square; otherwise squeeze it.
        background: grey level (0 … 255) that transparent pixels lie on.
        white: value of white in pictures with more than 8 bits; None: told by the file.
    """

    crop: bool = True
    background: int = 255
    white: float | None = None

    def __post_init__(self) -> None:
        """Refuse values that no pixels have.

        Raises:
            ValueError: naming the field.
        """
        if not 0 <= self.background <= 255:
            raise ValueError("background is between 0 and 255")
        if self.white is not None and not 0 < self.white < math.inf:
            raise ValueError("white is above 0 and finite")
