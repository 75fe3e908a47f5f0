"""Picture files as a network sees them, with NumPy and Pillow.

What `metakd.data.picture_preprocessing` does with torch, to the same 8-bit pixels.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from metakd.data.class_names import class_name
from metakd.data.picture_decoding import decode
from metakd.data.picture_reading import READING, Reading

__all__ = ["FOREIGN", "SUFFIXES", "Pictures"]

SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".gif", ".bmp", ".avif", ".heic", ".heif"),
    *(".jfif", ".jpe", ".mpo", ".apng", ".jp2", ".j2k", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
)
FOREIGN = ("__macosx", "@eadir", "$recycle.bin", "system volume information")
"""Folders that archives, file servers and systems leave behind; never a class."""
MOST_SIDE = 1 << 14
"""Pixels of a picture's side: bundle.json may claim more than there is memory for."""
LUMA = np.array((0.299, 0.587, 0.114), np.float32)
"""Weights of red, green and blue in grey: ITU-R 601-2."""


class Pictures:
    """How pictures are prepared for a network.

    Args:
        said: `preprocessing` of bundle.json.

    Raises:
        KeyError, TypeError, ValueError: it says something else.
    """

    what = "pictures"

    def __init__(self, said: Mapping[str, Any]) -> None:
        self.channels, self.height, self.width = (
            int(said[name]) for name in ("channels", "height", "width")
        )
        if not (0 < self.height <= MOST_SIDE and 0 < self.width <= MOST_SIDE):
            raise ValueError(f"preprocessing: height and width are between 1 and {MOST_SIDE}")
        reading = said["reading"]
        white = reading["white"]
        self.reading = Reading(
            crop=bool(reading["crop"]),
            background=int(reading["background"]),
            white=None if white is None else float(white),
        )
        self.central = float(said.get("central", 1.0))
        self.cubic = said.get("interpolation", "bilinear") == "bicubic"
        with np.errstate(over="ignore"):  # what is too large is inf, and refused
            mean, std = (np.array(said[name], np.float32) for name in ("mean", "std"))
        if self.channels not in (1, 3) or mean.shape != (self.channels,) or mean.shape != std.shape:
            raise ValueError("preprocessing: expected 1 or 3 channels, each with mean and std")
        if not (np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()):
            raise ValueError("preprocessing: mean has to be finite, and std above 0")
        if not 0 < self.central <= 1:
            raise ValueError("preprocessing: central is above 0 and at most 1")
        # Term by term as MetaKD computes it, so that the floats are the same.
        with np.errstate(over="ignore", divide="ignore"):  # refused
            self.scale = (np.float32(1.0) / (np.float32(255.0) * std)).reshape(-1, 1, 1)
            self.shift = (-mean / std).reshape(-1, 1, 1)
        if not (np.isfinite(self.scale).all() and np.isfinite(self.shift).all()):
            raise ValueError("preprocessing: std is too small")

    @property
    def kept(self) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Shape and type of a picture that is kept."""
        return (self.channels, self.height, self.width), np.dtype(np.uint8)

    def files(self, folder: Path) -> list[Any]:
        """Return the picture files that lie directly in a folder, by name."""
        with os.scandir(folder) as entries:
            named = [e for e in entries if e.name.lower().endswith(SUFFIXES) and e.name[0] != "."]
            return [folder / name for name in sorted(e.name for e in named if _is_file(e))]

    def by_class(self, folder: Path) -> list[tuple[str, list[Any]]]:
        """Return the picture files of each class: its name is that of a folder in the folder.

        Raises:
            OSError: it cannot be read.
            ValueError: two folders have the same name once accents are composed.
        """
        inner = sorted(p for p in folder.iterdir() if not _is_foreign(p.name) and p.is_dir())
        found = [(class_name(path.name), self.files(path)) for path in inner]
        names = [name for name, _ in found]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two folders are called '{name}'; merge them")
        return found

    def asked(self, path: Path) -> list[tuple[str, str, Any]]:
        """Return (class, place, file) of each picture to name; no class where a file is named.

        Raises:
            OSError, ValueError: it cannot be read.
        """
        if not path.is_dir():
            return [("", str(path), path)]
        found = [("", self.files(path)), *self.by_class(path)]
        return [(name, str(file), file) for name, files in found for file in files]

    def read(self, file: Any) -> np.ndarray:
        """Return a picture [channels, height, width] uint8.

        Raises:
            ValueError: it cannot be read.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = decode(file, (self.height, self.width), self.reading).pixels
        except READING as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(f"the image {file} cannot be read ({reason})") from None
        pixels = self.coloured(found)
        return np.ascontiguousarray(self._middle(pixels) if self.central < 1 else pixels)

    def coloured(self, pixels: np.ndarray) -> np.ndarray:
        """Return a picture [height, width, 3] as [channels, height, width] uint8."""
        layers = pixels.transpose(2, 0, 1)
        if self.channels == 3:
            return layers
        weighted = layers.astype(np.float32) * LUMA.reshape(3, 1, 1)
        grey = (weighted[0] + weighted[1]) + weighted[2]
        return np.clip(np.rint(grey), 0, 255).astype(np.uint8)[None]

    def seen(self, pixels: np.ndarray) -> np.ndarray:
        """Return pictures [n, channels, height, width] as the network sees them, float32."""
        found: np.ndarray = pixels.astype(np.float32) * self.scale + self.shift
        return found

    def _middle(self, pixels: np.ndarray) -> np.ndarray:
        """Return the middle of a picture at the picture's own size."""
        height, width = (max(1, round(self.central * side)) for side in pixels.shape[1:])
        top, left = (pixels.shape[1] - height) // 2, (pixels.shape[2] - width) // 2
        part = pixels[:, top : top + height, left : left + width].astype(np.float32)
        kernel = _cubic if self.cubic else _linear
        down = _enlarging(height, self.height, kernel, 2 if self.cubic else 1)
        across = _enlarging(width, self.width, kernel, 2 if self.cubic else 1)
        found = down @ (part @ across.T)
        return np.clip(np.rint(found), 0, 255).astype(np.uint8)


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link in a circle
        return False


def _is_foreign(name: str) -> bool:
    return name.startswith(".") or name.lower() in FOREIGN


def _enlarging(given: int, wanted: int, kernel: Callable[..., Any], support: int) -> np.ndarray:
    """Return the matrix [wanted, given] that enlarges a line of pixels."""
    centre = (np.arange(wanted, dtype=np.float64)[:, None] + 0.5) * given / wanted
    weights = kernel(np.arange(given)[None] + 0.5 - centre)
    weights *= np.abs(np.arange(given)[None] + 0.5 - centre) < support
    found: np.ndarray = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
    return found


def _linear(x: np.ndarray) -> np.ndarray:
    return np.maximum(0.0, 1.0 - np.abs(x))


def _cubic(x: np.ndarray) -> np.ndarray:
    """Return Keys' kernel with a = -0.5, as Pillow and torch (antialiased) have it."""
    a, x = -0.5, np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    found: np.ndarray = np.where(x < 1, near, np.where(x < 2, far, 0.0))
    return found
