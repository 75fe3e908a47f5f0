"""Linux only: a signal at the parent's end, and adoption of orphaned processes."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

__all__ = ["take_orphans_in", "tie_to"]

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def tie_to(parent: int) -> bool:
    """Ask for SIGTERM at the end of process `parent`; return false if it has ended already."""
    if sys.platform != "linux":
        return True
    _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)  # without it: as on other systems
    return os.getppid() == parent  # it may have ended before we asked


def take_orphans_in(wanted: bool) -> bool:
    """Make this process adopt orphaned descendants (subreaper); tell whether that works."""
    return sys.platform == "linux" and _prctl(PR_SET_CHILD_SUBREAPER, int(wanted))


def _prctl(option: int, value: int) -> bool:
    try:
        status: int = ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)
    except (OSError, AttributeError):  # a C library without it
        return False
    return status == 0
