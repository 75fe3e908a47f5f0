"""No tracker: only the run's own files are written."""

from __future__ import annotations

from metakd.tracking.tracker import Tracker

__all__ = ["NoTracker"]


class NoTracker(Tracker):
    """Mirrors nothing (`tracker=none`)."""

    def __init__(self, typed: frozenset[str] = frozenset()) -> None:
        """Take the pipeline's `typed` names and ignore them."""
