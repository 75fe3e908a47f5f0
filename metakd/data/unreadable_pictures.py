"""What is said of picture files that cannot be read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from PIL import UnidentifiedImageError, features

from metakd.data.class_names import class_name

__all__ = ["kinds_read", "left_out", "reason_of", "refusal"]

_SHOWN = 20  # names in a line


def kinds_read() -> list[bool]:
    """Return whether AVIF and HEIC can be read here, which depends on what is installed."""
    return [bool(features.check("avif")), find_spec("pillow_heif") is not None]


def refusal(wrong: Mapping[Path, str]) -> str:
    """Return the line that refuses files.

    Args:
        wrong: why each of them cannot be read.
    """
    if len(wrong) == 1:
        (path, reason), them = next(iter(wrong.items())), "it"
        what = f"the image {class_name(str(path))} cannot be read ({reason})"
    else:
        what, them = f"{len(wrong)} images cannot be read: {_listed(wrong)}", "them"
    return (
        f"{what}: repair or remove {them}, or set dataset.options.unreadable=skip to leave {them} "
        "out"
    )


def left_out(wrong: Mapping[Path, str]) -> str:
    """Return the line that says which files were left out."""
    if len(wrong) == 1:
        return f"1 image was left out, since it cannot be read: {_listed(wrong)}"
    return f"{len(wrong)} images were left out, since they cannot be read: {_listed(wrong)}"


def reason_of(error: Exception, path: Path | None = None) -> str:
    """Return why a picture cannot be read, in one line."""
    if isinstance(error, UnidentifiedImageError):
        if path is not None and path.suffix.lower() == ".avif" and not features.check("avif"):
            return "this Pillow cannot read AVIF: pip install 'pillow>=11.3'"
        return "it is no picture of a kind that is known"
    return " ".join(str(error).split()) or type(error).__name__


def _listed(wrong: Mapping[Path, str]) -> str:
    """Return the first names, those with the same reason side by side."""
    shown = list(wrong)[:_SHOWN]
    common = os.path.commonpath([path.parent for path in shown])
    by_reason: dict[str, list[str]] = {}
    for path in shown:
        by_reason.setdefault(wrong[path], []).append(class_name(os.path.relpath(path, common)))
    groups = [f"{', '.join(names)} ({reason})" for reason, names in by_reason.items()]
    more = f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
    return f"in {class_name(common)}: {'; '.join(groups)}{more}"
