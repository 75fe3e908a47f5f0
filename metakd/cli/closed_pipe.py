"""A reader that goes away (`metakd compare … | head -1`) changes nothing but who reads."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import Any

__all__ = ["survive_closed_pipes"]


class _Pipe(io.FileIO):
    """The file below a standard stream; what nobody reads any more goes to the null device."""

    def write(self, data: Any, /) -> int:
        """Write bytes; return how many of them are done with."""
        try:
            return super().write(data)
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return super().write(data)


def survive_closed_pipes() -> None:
    """Let standard output and standard error drop what nobody reads, for the whole process.

    A command then goes on to its end, and its exit status says what became of it. Terminals, and
    streams that are no files, stay as they are.
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
