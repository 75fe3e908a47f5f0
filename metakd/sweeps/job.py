"""The process of one job: `metakd` itself, which does not outlive the sweep that started it.

    python -m metakd.sweeps.job PARENT DIRECTORY WORD...

On Linux the kernel sends it SIGTERM when PARENT ends, however that ends: the run saves and stops,
as after Ctrl-C. Elsewhere a sweep that was killed leaves its jobs to run to their end, and waits
for them when it is started again.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from metakd.cli import main

__all__ = ["run", "tie_to"]

PR_SET_PDEATHSIG = 1


def tie_to(parent: int) -> bool:
    """Ask for SIGTERM at the end of process `parent`; return false if it has ended already."""
    if sys.platform != "linux":
        return True
    try:
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    except (OSError, AttributeError):  # a C library without it: as on other systems
        return True
    return os.getppid() == parent  # it may have ended before we asked


def run(arguments: Sequence[str]) -> int:
    """Do the job; return its exit status."""
    parent, directory, *words = arguments
    if not tie_to(int(parent)):
        return 130
    if os.getcwd() != directory:
        os.chdir(directory)
    # What run.json records as the command is one that can be typed.
    sys.argv = [str(Path(__file__).parents[1] / "__main__.py"), *words]
    return main(words)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
