"""Keep freed memory in the process: large batches on a CPU otherwise wait for fresh pages."""

from __future__ import annotations

import ctypes
import sys

__all__ = ["keep_freed_memory"]

# Names and numbers of glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell the C library to keep large freed blocks rather than give them back to the system.

    By default every tensor above some megabytes is a fresh mapping whose pages the system zeroes
    on first touch, each time anew: the activations of a meta-batch that is embedded in one pass
    are hundreds of megabytes per layer. A process-wide setting, so it is for a program to call
    at its start, not for a library on import. Memory then stays at its peak until the end.

    Returns:
        whether it took effect; False where the C library is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, _NEVER))
