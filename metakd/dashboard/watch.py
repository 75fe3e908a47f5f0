"""The runs below a folder, polled; only changed files are read again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from metakd.comparing.gather import DAMAGED, Run, gather, read
from metakd.errors import UserError
from metakd.runs.folder import RunFolder

__all__ = ["Watch", "figures_of", "is_inside"]

FILES = ("run.json", "results.json", ".hydra/config.yaml")
"""Files that a run's row depends on."""

RUNNING = "running"

Signature = tuple[tuple[int, int, int] | None, ...]


def is_inside(root: Path, path: Path) -> bool:
    """Tell whether `path`, links followed, lies in `root`, whose own links are followed already."""
    try:
        return path.resolve().is_relative_to(root)
    except (OSError, RuntimeError):  # a link to itself
        return False


class Watch:
    """Watches the runs below one folder.

    Args:
        folder: a run, or what holds some, at any depth.

    Raises:
        UserError: there is no such folder, or it is a file.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.exists():
            gather([folder])  # says what there is instead
        if not folder.is_dir():
            raise UserError(f"'{folder}' is a file; name the folder in which your runs lie")
        self.root = folder.resolve()
        self._known: dict[Path, tuple[Signature, Run]] = {}
        self._ids: dict[Path, str] = {}

    def look(self) -> tuple[list[Run], list[str]]:
        """Return the runs that there are now, and notes; the same object for a run as it was."""
        self._seen: set[Path] = set()
        try:
            runs, notes = gather([self.root], self._read)
        except UserError as error:
            runs, notes = [], [str(error)]
        self._known = {path: known for path, known in self._known.items() if path in self._seen}
        return runs, notes

    def id_of(self, run: Run) -> str:
        """Return a word by which the page asks for the run; it tells nothing about its path."""
        if run.path not in self._ids:
            place = os.fsencode(self.place_of(run))
            self._ids[run.path] = hashlib.sha256(place).hexdigest()[:12]
        return self._ids[run.path]

    def place_of(self, run: Run) -> str:
        """Return the run's folder as seen from the folder that is looked after."""
        place = os.path.relpath(run.path, self.root)
        return self.root.name if place == "." else place

    def _read(self, path: Path) -> Run:
        self._seen.add(path)
        now = _signature(path)
        before = self._known.get(path)
        if before is not None and before[0] == now and not self._has_died(before[1]):
            return before[1]
        run = self._read_anew(path)
        self._known[path] = (now, run)
        return run

    def _read_anew(self, path: Path) -> Run:
        for name in FILES:
            if not is_inside(self.root, path / name):
                return Run(path, DAMAGED, f"'{name}' is a link out of the folder; it is not read")
        return read(path)

    def _has_died(self, run: Run) -> bool:
        """Tell whether the process of a run that was alive is gone; no file says so."""
        if run.status != RUNNING:
            return False
        try:
            return RunFolder(run.path).read_run().status != RUNNING
        except UserError:
            return True


def figures_of(root: Path, run: Run) -> list[str]:
    """Return the names of a run's pictures; links that lead out of `root` are none."""
    folder = run.path / "figures"
    try:
        with os.scandir(folder) as entries:
            found = [e for e in entries if e.name.endswith(".png") and e.is_file()]
    except OSError:
        return []
    linked = folder.is_symlink() or any(e.is_symlink() for e in found)
    return sorted(e.name for e in found if not linked or is_inside(root, Path(e.path)))


def _signature(path: Path) -> Signature:
    return tuple(_stamps(path / name for name in FILES))


def _stamps(paths: Iterable[Path]) -> Iterable[tuple[int, int, int] | None]:
    for path in paths:
        try:
            stat = os.stat(path)
            yield stat.st_mtime_ns, stat.st_size, stat.st_ino
        except OSError:
            yield None
