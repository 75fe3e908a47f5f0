"""`python -m metakd` is `metakd`."""

from __future__ import annotations

import sys

from metakd.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    sys.exit(main())
