"""Standard streams that survive a closed pipe (`metakd compare … | head -1`)."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import Any

__all__ = ["survive_closed_pipes"]


class _Pipe(io.FileIO):
    """A standard stream's raw file; after the pipe is closed, output goes to the null device."""

    def write(self, data: Any, /) -> int:
        """Write bytes; return how many were written."""
        try:
            return super().write(data)
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return super().write(data)


def survive_closed_pipes() -> None:
    """Discard output to standard streams whose reader has gone, for the whole process.

    The command then runs to its end with its usual exit status. Terminals, and streams that are
    not files, are left alone.
    """
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        with contextlib.suppress(AttributeError, OSError, ValueError):
            if stream.fileno() != number or stream.isatty():
                continue
            stream.flush()
            pipe = _Pipe(number, "wb", closefd=False)
            unbuffered = isinstance(stream.buffer, io.FileIO)  # python -u
            wrapped = io.TextIOWrapper(
                pipe if unbuffered else io.BufferedWriter(pipe),
                encoding=stream.encoding,
                errors=stream.errors,
                line_buffering=stream.line_buffering or number == 2,
                write_through=stream.write_through,
            )
            setattr(sys, name, wrapped)
