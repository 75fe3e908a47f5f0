"""How threads wait for each other, which OpenMP decides when torch is loaded."""

from __future__ import annotations

import os
import sys

__all__ = ["let_waiting_threads_sleep"]

_SPINS = "1000"


def let_waiting_threads_sleep() -> None:
    """Let a thread that waits for another one sleep soon, so that others can have its core.

    GNU's OpenMP, which torch's Linux packages bring, turns 300,000 times in a loop before a waiting
    thread sleeps: milliseconds, at every barrier. Where another program holds the core of the
    thread that is waited for, a training step took 20 times as long. 1,000 is what OpenMP itself
    takes where it has more threads than cores (libgomp's manual, GOMP_SPINCOUNT); not to turn at
    all costs a small network a third of its speed on an idle machine.

    Nothing is done where torch is loaded already, or the user has said how threads wait.
    """
    said = "OMP_WAIT_POLICY" in os.environ or "GOMP_SPINCOUNT" in os.environ
    if not said and "torch" not in sys.modules:
        os.environ["GOMP_SPINCOUNT"] = _SPINS
