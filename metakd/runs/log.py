"""metakd.log: what went wrong, with tracebacks, beside the run."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["log_to"]


@contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Append everything that the project's modules log at level INFO and above to `path`.

    Warnings still reach standard error as before.
    """
    logger = logging.getLogger("metakd")
    level = logger.level
    file = _Log(path, encoding="utf-8", delay=True)
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    terminal = None
    if not logging.getLogger().handlers and not logger.handlers:
        # With any handler Python's own last resort (warnings to standard error) falls silent.
        terminal = logging.StreamHandler()
        terminal.setLevel(logging.WARNING)
        # A traceback is for the file; a person gets one line.
        terminal.addFilter(lambda record: record.exc_info is None)
        terminal.setFormatter(logging.Formatter("warning: %(message)s"))
        logger.addHandler(terminal)
    logger.addHandler(file)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(file)
        if terminal is not None:
            logger.removeHandler(terminal)
        file.close()


class _Log(logging.FileHandler):
    """A log whose disk may be full or gone: what the log is about is not made worse by it."""

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler.emit`; opening the file, too, can fail."""
        with contextlib.suppress(OSError):
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        """Say nothing: the problem that was to be logged reaches the user as a line."""

    def close(self) -> None:
        """See `logging.FileHandler.close`; what was buffered may be lost."""
        with contextlib.suppress(OSError):
            super().close()
