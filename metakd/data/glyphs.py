"""Glyphs, the embedded dataset: letters of many scripts, drawn from the fonts matplotlib ships."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL
import torch
from PIL import features

from metakd.data.class_examples import ClassExamples, PreparedData
from metakd.data.counter_random import permutation, stream_key
from metakd.data.glyph_distortion import distort
from metakd.data.glyph_drawing import Drawings, draw_letters, look_alikes
from metakd.data.glyph_fonts import Letter, find_letters, font_checksums, font_folder
from metakd.errors import UserError

__all__ = ["LOOK_ALIKE", "SCRIPTS", "Glyphs", "merge_letters"]

SCRIPTS: dict[str, tuple[str, ...]] = {
    "train": ("Latin", "Cyrillic", "Canadian Aboriginal"),
    "validate": ("Greek", "Coptic", "Arabic", "N'Ko", "Ogham", "Old Italic", "Lisu"),
    "test": ("Georgian", "Armenian", "Hebrew", "Lao", "Tifinagh"),
}
"""The class split, by whole scripts: about 63, 17 and 20 % of the classes."""

LOOK_ALIKE = 0.035
"""Letters nearer than this (1 - cosine of the blurred drawings) become one class. At 0.035 merge
A, Greek Α and Cyrillic А, capitals with small letters of the same form, bars and circles; at 0.05
circles would start to swallow letters that merely are round."""

_VERSION = 1  # raised whenever the same settings give other images
_KEY = 20_250_101  # of every random number here; a constant, so that everyone has the same images
_HELD_OUT = 0.2  # share of each class's images that the target task keeps for its test


def merge_letters(letters: Sequence[Letter], drawings: Drawings) -> list[tuple[int, ...]]:
    """Return the classes: letters that look alike, as positions in `letters`.

    The first letter of a class names it and gives it its script. Scripts come in the order of
    `SCRIPTS`, so a look-alike of a training letter is never in a validation or test class.
    """
    order = [script for scripts in SCRIPTS.values() for script in scripts]
    groups: dict[int, list[int]] = {}
    for position, first in enumerate(look_alikes(drawings, LOOK_ALIKE).tolist()):
        groups.setdefault(first, []).append(position)

    def rank(position: int) -> tuple[int, str]:
        return order.index(letters[position].script), letters[position].character

    classes = [tuple(sorted(members, key=rank)) for members in groups.values()]
    return sorted(classes, key=lambda members: rank(members[0]))


class Glyphs:
    """Letters of 15 scripts in four or more faces each; the test scripts are never trained on.

    Settings: `images_per_class`, `image_size` (null: 28) and the option `distortion`, which scales
    slant, turn, size, shift, bends and stroke width of the images (0: none of them).
    """

    def __init__(
        self,
        data_root: Path,
        *,
        images_per_class: int | None = 20,
        image_size: int | None = None,
        distortion: float = 1.0,
    ) -> None:
        """Keep the settings; nothing is drawn yet.

        Args:
            data_root: not used: the letters come with matplotlib.
            images_per_class: images of each class; null means 20.
            image_size: height and width in pixels; null means 28.
            distortion: strength of the variation, from 0 to 2.

        Raises:
            UserError: a setting is out of its range.
        """
        del data_root
        self.images_per_class = 20 if images_per_class is None else images_per_class
        self.image_size = 28 if image_size is None else image_size
        self.distortion = float(distortion)
        if not 2 <= self.images_per_class <= 1000:
            raise UserError(
                f"dataset.images_per_class={self.images_per_class}: glyphs can make "
                "2 to 1000 images of a class; 20 is its default"
            )
        if not 8 <= self.image_size <= 64:
            raise UserError(
                f"dataset.image_size={self.image_size}: glyphs are drawn at 8 to 64 pixels; "
                "28 is the default"
            )
        if not 0.0 <= self.distortion <= 2.0:
            raise UserError(
                f"dataset.options.distortion={self.distortion:g}: must lie between 0 and 2; "
                "1 is the default"
            )

    def cache_key(self) -> str:
        """Return a key that changes with everything that decides the images."""
        decides = {
            "version": _VERSION,
            "images_per_class": self.images_per_class,
            "image_size": self.image_size,
            "distortion": self.distortion,
            "fonts": font_checksums(font_folder()),
            "pillow": PIL.__version__,
            "freetype": features.version("freetype2"),
            "unicode": unicodedata.unidata_version,
        }
        digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
        return f"glyphs-{digest[:32]}"

    def load(self) -> PreparedData:
        """Draw the letters and return the three splits, on the CPU.

        Raises:
            UserError: matplotlib's font files are missing or damaged.
        """
        folder = font_folder()
        letters = find_letters(folder)
        drawings = draw_letters(folder, letters)
        classes = merge_letters(letters, drawings)
        images = self._images(classes, drawings)
        scripts = [letters[members[0]].script for members in classes]
        names = [_class_name(letters[members[0]]) for members in classes]
        splits = {}
        for split, own_scripts in SCRIPTS.items():
            of_split = [number for number, script in enumerate(scripts) if script in own_scripts]
            present = [script for script in own_scripts if script in scripts]
            splits[split] = ClassExamples(
                examples=images[of_split].flatten(0, 1),
                labels=torch.arange(len(of_split)).repeat_interleave(self.images_per_class),
                class_names=tuple(names[number] for number in of_split),
                groups=torch.tensor([present.index(scripts[number]) for number in of_split]),
                held_out=self._held_out().repeat(len(of_split)),
                group_names=tuple(present),
            )
        return PreparedData(splits=splits, name="glyphs")

    def _images(self, classes: Sequence[tuple[int, ...]], drawings: Drawings) -> torch.Tensor:
        """Return uint8 [classes, images_per_class, 1, size, size]."""
        of_letter = [
            np.flatnonzero(drawings.letter == letter) for letter in range(drawings.letter.max() + 1)
        ]
        chosen = []
        for number, members in enumerate(classes):
            rows = torch.from_numpy(np.concatenate([of_letter[member] for member in members]))
            # Round-robin through a class's faces, in an order of its own.
            order = permutation(stream_key(_KEY, "faces", number), len(rows), torch.device("cpu"))
            turns = torch.arange(self.images_per_class) % len(rows)
            chosen.append(rows[order][turns])
        flat = distort(
            torch.from_numpy(drawings.images),
            torch.cat(chosen),
            size=self.image_size,
            strength=self.distortion,
            key=stream_key(_KEY, "distortion"),
        )
        return flat.view(len(classes), self.images_per_class, 1, *flat.shape[1:])

    def _held_out(self) -> torch.Tensor:
        """Return bool [images_per_class]: the last ones, at least one."""
        kept = max(1, round(_HELD_OUT * self.images_per_class))
        return torch.arange(self.images_per_class) >= self.images_per_class - kept


def _class_name(letter: Letter) -> str:
    return f"{letter.script}/{letter.character} U+{ord(letter.character):04X}"
