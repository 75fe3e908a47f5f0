"""The process of one job: `metakd` itself, which does not outlive the sweep that started it.

    python -m metakd.cli.job PARENT DIRECTORY WORD...

or a copy of a process that has done its imports (`metakd.sweeps.server`).

On Linux the kernel sends it SIGTERM when PARENT ends, however that ends: the run saves and stops,
as after Ctrl-C. Elsewhere a sweep that was killed leaves its jobs to run to their end, and waits
for them when it is started again.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from metakd.cli import main
from metakd.sweeps.tie import tie_to

__all__ = ["run"]


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
