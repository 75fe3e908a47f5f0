"""The place of a run's folder: checked before anything is computed, and made unique."""

from __future__ import annotations

import tempfile
from pathlib import Path

from metakd.errors import UserError

__all__ = ["check_writable", "make_unique", "why"]


def why(error: OSError) -> str:
    """Return in a few words why a file or folder cannot be used."""
    return (error.strerror or str(error)).lower()


def check_writable(path: Path) -> None:
    """Refuse a folder in which no run could be written, before anything is computed.

    Nothing is left behind: the nearest folder that exists is tried with a temporary file.

    Raises:
        UserError: naming the folder and the reason.
    """
    folder = path.absolute()
    try:
        while not folder.exists():  # an over-long name raises here, too
            folder = folder.parent
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            f"output folder '{path}' cannot be written ({why(error)}: '{folder}'); "
            "choose another with output_root=… or hydra.run.dir=…"
        ) from error


def make_unique(path: Path) -> Path:
    """Make a folder that did not exist: `path`, else `path_1`, `path_2` and so on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    number, chosen = 0, path
    while True:
        try:
            chosen.mkdir(exist_ok=False)
        except FileExistsError:
            number += 1
            chosen = path.with_name(f"{path.name}_{number}")
        else:
            return chosen
