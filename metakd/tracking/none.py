"""No tracker: only the run's own files are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metakd.runs.records import Results

__all__ = ["NoTracker"]


class NoTracker:
    """Mirrors nothing (`tracker=none`)."""

    def __init__(self, typed: frozenset[str] = frozenset()) -> None:
        """Take the pipeline's `typed` names and ignore them."""

    def start(
        self,
        config: Mapping[str, Any],
        folder: Path,
        name: str,
        tags: Sequence[str] = (),
        job_type: str = "train",
        run_id: str | None = None,
    ) -> dict[str, Any]:
        """Return nothing to record."""
        return {}

    def log(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        """Ignore the metrics."""

    def summary(self, results: Results) -> None:
        """Ignore the results."""

    def figure(self, name: str, path: Path) -> None:
        """Ignore the image."""

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Ignore the table."""

    def artifact(self, name: str, folder: Path, metadata: Mapping[str, Any]) -> None:
        """Ignore the files."""

    def finish(self, status: str) -> None:
        """Do nothing."""
