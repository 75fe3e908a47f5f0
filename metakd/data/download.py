"""Downloads through torchvision, with the one line that a user needs when they fail."""

from __future__ import annotations

import contextlib
import socket
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from metakd.data.picture_reading import READING
from metakd.errors import UserError

__all__ = ["READING", "at_most", "damaged", "download"]


class _File(Protocol):
    def read(self, size: int, /) -> bytes: ...


_SECONDS = 20.0
"""Longest wait for a server's answer; torchvision itself would wait for ever."""


def download(
    name: str, data_root: Path, wanted: str, fetch: Callable[[], object], made: Sequence[str]
) -> None:
    """Run torchvision's own download.

    Args:
        name: of the dataset.
        data_root: where the files go.
        wanted: what was looked for in `data_root`, as the message shall name it.
        fetch: constructs torchvision's class with ``download=True``.
        made: folders in `data_root` that torchvision makes; left empty by a failed download
            they are removed again.

    Raises:
        UserError: it failed; the message names the folder and the remedy.
    """
    folders = [data_root, *(data_root / folder for folder in made)]
    new = [folder for folder in folders if not folder.exists()]
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_SECONDS)
    try:
        fetch()
    except (OSError, RuntimeError, zipfile.BadZipFile) as error:
        for folder in reversed(new):
            with contextlib.suppress(OSError):
                folder.rmdir()
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else repr(error)
        raise UserError(
            f"dataset {name}: looked for {wanted} in {data_root} and found none, and the download "
            f"failed ({reason}): put it there, or give the folder that holds it with data_root=… "
            "or METAKD_DATA"
        ) from error
    finally:
        socket.setdefaulttimeout(before)


@contextlib.contextmanager
def damaged(name: str, path: Path) -> Iterator[None]:
    """Turn every way in which reading `path` can fail into one clear line."""
    try:
        yield
    except READING as error:
        if isinstance(error, UserError):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"dataset {name}: {path} is damaged or not what it should be ({reason}): get it again"
        ) from error


def at_most(file: _File, limit: int) -> bytes:
    """Return what `file` unpacks to.

    Raises:
        ValueError: more than `limit` bytes, as of an archive that was made to fill the memory.
    """
    content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"it unpacks to more than {limit >> 20} MiB")
    return content
