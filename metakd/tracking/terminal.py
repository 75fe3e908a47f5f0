"""A console that survives a closed pipe: `metakd train | head -1` must not end the run."""

from __future__ import annotations

import contextlib
import os

from rich.console import Console

__all__ = ["Terminal"]


class Terminal(Console):
    """As rich's console, but output to a closed pipe is dropped; rich would end the program."""

    def on_broken_pipe(self) -> None:
        """Discard all further output to the same pipe."""
        self.quiet = True
        # Python flushes its buffer at exit; that has to go somewhere, too.
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.file.fileno())
            os.close(nowhere)
