"""Writing a file so that a reader, or the next start after a crash, never sees half of it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

__all__ = ["replace_file", "sync_folder", "write_bytes", "write_new", "write_text"]


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` durable; does nothing where folders cannot be opened."""
    if os.name == "nt":  # Windows has no descriptor for a folder
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_new(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Write `path` through `write`, flushed to the disk; removed again if that fails."""
    try:
        with path.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:  # Ctrl-C, too, must not leave half a file behind
        with contextlib.suppress(OSError):
            path.unlink()
        raise


def replace_file(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Replace `path` by what `write` writes: the old content or the new one, never a mixture."""
    temporary = path.with_name(f".{path.name}.tmp")  # one writer a folder: debris never piles up
    write_new(temporary, write)
    os.replace(temporary, path)
    sync_folder(path.parent)


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` by `content`, atomically."""

    def write(file: BinaryIO) -> None:
        file.write(content)

    replace_file(path, write)


def write_text(path: Path, content: str) -> None:
    """Replace `path` by `content` in UTF-8, atomically."""
    write_bytes(path, content.encode("utf-8"))
