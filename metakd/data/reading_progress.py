"""Progress of reading or embedding much, for whoever watches; the data knows of no terminal."""

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

    def __init__(self, total: int, around: ExitStack, title: str, open_bar: OpenBar | None) -> None:
        self._total, self._around, self._title, self._open_bar = total, around, title, open_bar
        self._done, self._began = 0, time.monotonic()
        self._bar: _Bar | None = None

    def advance(self, files: int) -> None:
        """Count so many files more."""
        self._done += files
        if self._bar is not None:
            self._bar.advance(files)
            return
        open_bar = self._open_bar or _open_bar.get()
        if open_bar is not None and time.monotonic() - self._began >= SILENT_S:
            bar = open_bar(self._title, self._total, self._done)
            self._bar = self._around.enter_context(bar)


@contextmanager
def reading_progress(
    total: int, title: str = "reading pictures", open_bar: OpenBar | None = None
) -> Iterator[ReadingProgress]:
    """Count `total` files or examples; `open_bar`, or that of `reading_shown_by`, shows it."""
    with ExitStack() as around:
        yield ReadingProgress(total, around, title, open_bar)
