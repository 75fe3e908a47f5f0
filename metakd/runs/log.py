"""metakd.log: what went wrong, with tracebacks, beside the run."""

from __future__ import annotations

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
    file = logging.FileHandler(path, encoding="utf-8", delay=True)
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    terminal = None
    if not logging.getLogger().handlers and not logger.handlers:
        # With any handler Python's own last resort (warnings to standard error) falls silent.
        terminal = logging.StreamHandler()
        terminal.setLevel(logging.WARNING)
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
