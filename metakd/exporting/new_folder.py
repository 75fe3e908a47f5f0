"""A folder that is there as a whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from metakd.errors import UserError

__all__ = ["check_free", "new_folder"]


def check_free(folder: Path) -> None:
    """Refuse a place where something is.

    Raises:
        UserError: naming it.
    """
    if folder.is_symlink() or folder.exists():
        raise UserError(f"'{folder}' is there already; name another folder with --output")


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `folder`, which it becomes; removed if something fails.

    Raises:
        UserError: something is there, or it cannot be written.
    """
    folder = folder.absolute()
    check_free(folder)
    new = folder.with_name(f".{folder.name}.{os.getpid()}.new")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        new.mkdir()
    except OSError as error:
        raise _not_written(folder, error) from error
    try:
        yield new
        check_free(folder)  # made meanwhile
        os.rename(new, folder)
    except OSError as error:
        raise _not_written(folder, error) from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _not_written(folder: Path, error: OSError) -> UserError:
    return UserError(
        f"'{folder}' cannot be written ({error.strerror or error}); name another folder with "
        "--output"
    )
