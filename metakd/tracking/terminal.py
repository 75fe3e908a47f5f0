"""A console whose reader may go away: `metakd train | head -1` must not end the run."""

from __future__ import annotations

import contextlib
import os

from rich.console import Console

__all__ = ["Terminal"]


class Terminal(Console):
    """As rich's console, but what nobody reads any more is dropped; rich would end the program."""

    def on_broken_pipe(self) -> None:
        """Say nothing from now on, neither here nor by others through the same pipe."""
        self.quiet = True
        # Python itself writes what is left at the end; that has to go somewhere, too.
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.file.fileno())
            os.close(nowhere)
