"""Every kind of pixels that Pillow knows, as 8-bit RGB on a background."""

from __future__ import annotations

from PIL import Image

from metakd.data.colour_profile import lab_in_srgb, profile_in_srgb
from metakd.data.picture_depth import DEEP_MODES, Depth, check_deep_colour, grey_of
from metakd.data.picture_reading import Reading

__all__ = ["as_rgb"]

_WITH_ALPHA = {"LA": "LA", "La": "LA", "PA": "RGBA", "RGBA": "RGBA", "RGBa": "RGBA"}


def as_rgb(picture: Image.Image, depth: Depth, reading: Reading) -> Image.Image:
    """Return `picture` as RGB: docs/pictures.md has a table of what becomes of each mode.

    Args:
        picture: in any of Pillow's modes; not changed.
        depth: what its file says of its values.
        reading: the background under transparent pixels, and the value of white.

    Raises:
        ValueError: its values cannot be told apart from others.
    """
    if picture.mode in DEEP_MODES:
        colour, alpha = grey_of(picture, depth, reading.white)
    else:
        check_deep_colour(picture, depth, reading.white)
        colour, alpha = _colour_and_alpha(picture)
    if colour.mode == "LAB":
        rgb = lab_in_srgb(colour)
    else:
        rgb = profile_in_srgb(colour, picture.info.get("icc_profile"))
    if alpha is None or alpha.getextrema() == (255, 255):
        return rgb
    under = Image.new("RGB", rgb.size, (reading.background,) * 3)
    under.paste(rgb, mask=alpha)
    return under


def _colour_and_alpha(picture: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Return the picture as L, RGB, CMYK or LAB, and its alpha as L or None."""
    mode = picture.mode
    if mode in _WITH_ALPHA or "transparency" in picture.info:
        with_alpha = picture.convert(_WITH_ALPHA.get(mode, "RGBA"))
        grey = with_alpha.mode == "LA" or mode in ("1", "L")
        colour = with_alpha.getchannel(0) if grey else with_alpha.convert("RGB")
        return colour, with_alpha.getchannel("A")
    if mode in ("L", "RGB", "CMYK", "LAB"):
        return picture, None
    return picture.convert("L" if mode == "1" else "RGB"), None
