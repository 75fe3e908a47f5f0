"""Ctrl-C and SIGTERM end a run cleanly: once as an exception, the second time at once."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Interrupted", "Stop", "interrupts"]

SAME_PRESS_S = 0.2
"""Signals closer than this are one request: `timeout`, shells and launchers signal a process and
then its whole group, so that one press of Ctrl-C may arrive twice."""


class Interrupted(KeyboardInterrupt):
    """Somebody asked this process to end (Ctrl-C or SIGTERM): save, say how to go on, exit 130."""


class Stop:
    """Whether an end was asked for, for code that wants to look instead of being interrupted."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._time = 0.0
        self._held = 0

    def check(self) -> None:
        """Raise `Interrupted` if an end was asked for.

        A loop that calls this each step stops even if the first exception was lost in a place
        where Python drops exceptions (a finaliser, a callback from C).
        """
        if self.signal is not None:
            raise Interrupted(signal.Signals(self.signal).name)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let the block run to its end: the first signal raises after it, not within.

        An update that was broken off in the middle leaves weights that no run ever had.
        """
        self.hold()
        try:
            yield
        finally:
            self._held -= 1
        if not self._held:
            self.check()

    def hold(self) -> None:
        """From now on only take note of a signal (until `release`)."""
        self._held += 1

    def release(self) -> None:
        """Undo one `hold`.

        Raises:
            Interrupted: nothing holds any more, and an end was asked for.
        """
        self._held -= 1
        if not self._held:
            self.check()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.signal is None:
            self.signal, self._time = number, now
            if not self._held:
                self.check()
        elif now - self._time > SAME_PRESS_S:
            os._exit(130)


@contextmanager
def interrupts() -> Iterator[Stop]:
    """Turn the first SIGINT or SIGTERM into `Interrupted` in the main thread.

    A second one ends the process at once with status 130. The handlers from before are restored.
    In another thread (a launcher that runs jobs in threads) signals cannot be handled: this does
    nothing there. A SIGINT that is ignored (a job in the background of a shell) stays ignored.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    numbers = [
        n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) is not signal.SIG_IGN
    ]
    before = {n: signal.signal(n, stop._handle) for n in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            # None: set by code outside Python, which signal.signal cannot put back
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
