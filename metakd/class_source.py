"""Whose a class is, and the file that defines it."""

from __future__ import annotations

import hashlib
import inspect
from pathlib import Path

__all__ = ["is_built_in", "source_fingerprint"]


def is_built_in(cls: type) -> bool:
    """Tell whether a class is part of MetaKD, not of a user's module."""
    return cls.__module__.partition(".")[0] == "metakd"


def source_fingerprint(cls: type) -> str:
    """Return a hash of the file that defines `cls`; empty if it was defined in a notebook."""
    try:
        return hashlib.sha256(Path(inspect.getfile(cls)).read_bytes()).hexdigest()
    except (OSError, TypeError):
        return ""
