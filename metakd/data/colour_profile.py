"""Embedded colour profiles (ICC): colours as they were meant, in sRGB."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict

import numpy as np
from PIL import Image, ImageCms

__all__ = ["lab_in_srgb", "profile_in_srgb"]

_SPACES = {"L": "GRAY", "RGB": "RGB ", "CMYK": "CMYK"}
_KEPT = 16  # transforms; the pictures of a folder come from few cameras
_STEPS = (0, 32, 64, 96, 128, 160, 192, 224, 255)
_own = threading.local()  # a transform serves one thread at a time


def profile_in_srgb(picture: Image.Image, profile: bytes | None) -> Image.Image:
    """Return `picture` (L, RGB or CMYK) as RGB, by its profile if that is sound and fits.

    A damaged profile, or one of another kind of colour, is as none. So is one whose colours are
    those of sRGB within one level: such pictures stay as they are, to the last bit.
    """
    change = None if not profile else _transform(profile, picture.mode)
    if change is None:
        return picture.convert("RGB")
    changed = ImageCms.applyTransform(picture, change)
    assert changed is not None  # only in place it returns nothing
    return changed


def lab_in_srgb(picture: Image.Image) -> Image.Image:
    """Return a picture in CIE L*a*b* (white: D50) as RGB."""
    change = ImageCms.buildTransform(
        ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB"
    )
    changed = ImageCms.applyTransform(picture, change)
    assert changed is not None
    return changed


def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    kept: OrderedDict[tuple[bytes, str], ImageCms.ImageCmsTransform | None]
    kept = _own.__dict__.setdefault("kept", OrderedDict())
    key = (profile, mode)
    if key in kept:
        kept.move_to_end(key)
    else:
        kept[key] = _built(profile, mode)
        if len(kept) > _KEPT:
            kept.popitem(last=False)
    return kept[key]


def _built(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space != _SPACES.get(mode):
            return None
        change = ImageCms.buildTransform(
            source,
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    return None if _is_identity(change, mode) else change


def _is_identity(change: ImageCms.ImageCmsTransform, mode: str) -> bool:
    if mode == "CMYK":
        return False
    channels = 1 if mode == "L" else 3
    grid = np.stack(np.meshgrid(*[np.array(_STEPS, dtype=np.uint8)] * channels), axis=-1)
    probe = Image.fromarray(grid.reshape(1, -1) if channels == 1 else grid.reshape(1, -1, 3))
    changed = ImageCms.applyTransform(probe, change)
    assert changed is not None
    before = np.asarray(probe.convert("RGB")).astype(np.int16)
    return bool((np.abs(np.asarray(changed) - before) <= 1).all())
