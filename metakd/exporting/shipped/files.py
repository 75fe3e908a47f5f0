"""The files of a bundle, none of them outside of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

__all__ = ["checked_file"]


def checked_file(folder: Path, name: str, sums: Mapping[str, str] | None = None) -> Path:
    """Return a file of a bundle.

    Args:
        folder: of the bundle.
        name: of the file in it, with `/`.
        sums: SHA-256 by name; None: the content may change.

    Raises:
        ValueError: it leads out of the bundle, is missing, or is not what was written.
        OSError: it cannot be read.
    """
    parts = PurePosixPath(name).parts
    leads_out = not parts or ".." in parts or "\\" in name or ":" in name or name.startswith("/")
    file = folder.joinpath(*parts)
    if leads_out or not file.is_file() or not file.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"'{name}' is no file of the bundle")
    if sums is not None and hashlib.sha256(file.read_bytes()).hexdigest() != sums.get(name):
        raise ValueError(f"'{name}' is not what was exported: its checksum differs")
    return file
