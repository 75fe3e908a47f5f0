"""Progress of reading many files, for whoever watches; the data knows of no terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from typing import Protocol

__all__ = ["OpenBar", "ReadingProgress", "reading_progress", "reading_shown_by"]

SILENT_S = 2.0
"""Reading that is done by then shows nothing."""


class _Bar(Protocol):
    def advance(self, steps: int = 1) -> None: ...


OpenBar = Callable[[str, int, int], AbstractContextManager[_Bar]]
"""Shows a bar while its block runs: given a title, the number of files, and how many are read."""

_open_bar: ContextVar[OpenBar | None] = ContextVar("open_bar", default=None)


@contextmanager
def reading_shown_by(open_bar: OpenBar) -> Iterator[None]:
    """Have `open_bar` show the progress of whatever is read in the block."""
    token = _open_bar.set(open_bar)
    try:
        yield
    finally:
        _open_bar.reset(token)


class ReadingProgress:
    """Counts files; opens a bar once reading has taken a while."""

    def __init__(self, total: int, around: ExitStack) -> None:
        self._total, self._around = total, around
        self._done, self._began = 0, time.monotonic()
        self._bar: _Bar | None = None

    def advance(self) -> None:
        """Count one file more."""
        self._done += 1
        if self._bar is not None:
            self._bar.advance()
            return
        open_bar = _open_bar.get()
        if open_bar is not None and time.monotonic() - self._began >= SILENT_S:
            bar = open_bar("reading pictures", self._total, self._done)
            self._bar = self._around.enter_context(bar)


@contextmanager
def reading_progress(total: int) -> Iterator[ReadingProgress]:
    """Count the reading of `total` files, for `reading_shown_by` to show."""
    with ExitStack() as around:
        yield ReadingProgress(total, around)
