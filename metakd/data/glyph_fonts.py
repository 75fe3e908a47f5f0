"""Which letters the fonts that matplotlib ships can draw, and in which faces."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from metakd.errors import UserError

__all__ = [
    "FACES",
    "REFERENCE_FACES",
    "SCRIPTS",
    "SHEAR",
    "Face",
    "Letter",
    "find_letters",
    "font_checksums",
    "font_folder",
]

SHEAR = 0.194
"""Tangent of 11 degrees, by which DejaVu slants its own oblique faces."""

MINIMUM_FACES = 4

SCRIPTS = {
    "CANADIAN SYLLABICS": "Canadian Aboriginal",
    "LATIN": "Latin",
    "CYRILLIC": "Cyrillic",
    "GREEK": "Greek",
    "COPTIC": "Coptic",
    "ARABIC": "Arabic",
    "LISU": "Lisu",
    "NKO": "N'Ko",
    "OGHAM": "Ogham",
    "OLD ITALIC": "Old Italic",
    "GEORGIAN": "Georgian",
    "ARMENIAN": "Armenian",
    "HEBREW": "Hebrew",
    "LAO": "Lao",
    "TIFINAGH": "Tifinagh",
}
"""How the Unicode names of a script's letters begin, and what we call the script."""


@dataclass(frozen=True)
class Face:
    """A way to draw letters: a font file, drawn as it is or slanted.

    Attributes:
        file: name of the font file, without its folder.
        sheared: drawn from the upright file and slanted by us. Used for a letter that the
            family's own oblique file lacks (Tifinagh, N'Ko, Ogham and part of Arabic).
        upright: for a sheared face, the oblique file that it stands in for; else empty.
    """

    file: str
    sheared: bool = False
    stands_in_for: str = ""


def _family(stem: str, upright: tuple[str, str], slanted: tuple[str, str]) -> tuple[Face, ...]:
    own = [Face(f"{stem}{suffix}.ttf") for suffix in (*upright, *slanted)]
    stand_ins = [
        Face(f"{stem}{u}.ttf", sheared=True, stands_in_for=f"{stem}{s}.ttf")
        for u, s in zip(upright, slanted, strict=True)
    ]
    return (*own, *stand_ins)


FACES: tuple[Face, ...] = (
    *_family("DejaVuSans", ("", "-Bold"), ("-Oblique", "-BoldOblique")),
    *_family("DejaVuSerif", ("", "-Bold"), ("-Italic", "-BoldItalic")),
    *_family("DejaVuSansMono", ("", "-Bold"), ("-Oblique", "-BoldOblique")),
    *(Face(f"STIXGeneral{suffix}.ttf") for suffix in ("", "Bol", "Italic", "BolIta")),
)
"""Every face a letter may be drawn in, in the order in which a class goes through them."""

REFERENCE_FACES = (0, 1)
"""DejaVu Sans and its bold: every letter has them, so any two letters can be compared there."""


@dataclass(frozen=True)
class Letter:
    """A letter with the faces that can draw it (positions in `FACES`)."""

    character: str
    script: str
    faces: tuple[int, ...]


def font_folder() -> Path:
    """Return the folder of the fonts that the installed matplotlib ships."""
    import matplotlib  # deferred: only making the dataset needs it

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf"


def font_checksums(folder: Path, faces: Sequence[Face] = FACES) -> dict[str, str]:
    """Return the SHA-256 of every font file that `faces` use.

    Raises:
        UserError: a font file is missing or cannot be read.
    """
    checksums = {}
    for file in sorted({face.file for face in faces}):
        try:
            checksums[file] = hashlib.sha256((folder / file).read_bytes()).hexdigest()
        except OSError as error:
            raise UserError(
                f"dataset=glyphs: the font {folder / file} cannot be read "
                f"({error.strerror}); reinstall matplotlib, which ships it"
            ) from error
    return checksums


def _script(character: str) -> str | None:
    name = unicodedata.name(character, "")
    return next((script for start, script in SCRIPTS.items() if name.startswith(start)), None)


def _is_plain_letter(character: str) -> bool:
    """Whether this is a letter in its own right.

    Accented letters (é = e + accent) and compatibility forms (ﬁ, 𝔄, the positional forms of
    Arabic) are drawings of other letters, so they are left out; modifiers are not letters.
    """
    return (
        unicodedata.category(character) in {"Lu", "Ll", "Lt", "Lo"}
        and unicodedata.normalize("NFKD", character) == character
    )


def find_letters(folder: Path, minimum_faces: int = MINIMUM_FACES) -> list[Letter]:
    """Return the letters that enough faces can draw, in code point order.

    Args:
        folder: where the font files of `FACES` are.
        minimum_faces: a letter needs so many faces, among them `REFERENCE_FACES`.

    Raises:
        UserError: a font file is missing or is not a font.
    """
    from fontTools.ttLib import TTFont, TTLibError  # deferred: only making the dataset needs it

    covered: dict[str, set[int]] = {}
    for file in {face.file for face in FACES}:
        try:
            with TTFont(folder / file, lazy=True) as font:
                covered[file] = set(font.getBestCmap())
        except (OSError, TTLibError) as error:
            raise UserError(
                f"dataset=glyphs: {folder / file} is not a readable font ({error}); "
                "reinstall matplotlib, which ships it"
            ) from error
    letters = []
    for code in sorted(set().union(*covered.values())):
        character = chr(code)
        script = _script(character)
        if script is None or not _is_plain_letter(character):
            continue
        faces = tuple(
            position
            for position, face in enumerate(FACES)
            if code in covered[face.file]
            and not (face.sheared and code in covered[face.stands_in_for])
        )
        if len(faces) >= minimum_faces and set(REFERENCE_FACES) <= set(faces):
            letters.append(Letter(character, script, faces))
    return letters
