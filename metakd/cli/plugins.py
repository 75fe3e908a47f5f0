"""Where a user's own modules are looked for."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

__all__ = ["look_here_for"]


def look_here_for(plugins: Sequence[str]) -> None:
    """Find the modules of `plugins=[…]` in the current folder, too.

    A console script has its own folder on Python's path, not the current one. Installed packages
    still come first, and without plugins nothing changes.
    """
    if plugins and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
