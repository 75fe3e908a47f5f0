"""The interface of trackers; a tracker only mirrors the run's own files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metakd.runs.records import Results

__all__ = ["Tracker"]


class Tracker:
    """Mirror of a run's metrics elsewhere; this one mirrors nothing.

    No method may raise for errors outside (network, server, disk), nor block the run for longer
    than its timeout.

    Constructor convention: ``Tracker(typed, *, <settings of TrackerConfig by name>)``; `typed` are
    the names of the settings that were typed on the command line, e.g. ``{"mode"}``.
    """

    def start(
        self,
        config: Mapping[str, Any],
        folder: Path,
        name: str,
        tags: Sequence[str] = (),
        job_type: str = "train",
        run_id: str | None = None,
    ) -> dict[str, Any]:
        """Begin to mirror a run.

        Args:
            config: the run's settings, as plain containers.
            folder: the run's folder; holds the tracker's own files.
            name: the run's name.
            tags: of the run.
            job_type: `train`, `evaluate`.
            run_id: of the earlier part of a resumed run.

        Returns:
            Fields for run.json, each only if known: `wandb_run_id`, `wandb_mode`,
            `wandb_url`, `wandb_dir`, `wandb_sync` (the command that uploads an offline run).
        """
        return {}

    def log(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        """Mirror the metrics of a step."""

    def summary(self, results: Results) -> None:
        """Mirror the final results."""

    def figure(self, name: str, path: Path) -> None:
        """Mirror an image file."""

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Mirror a table of numbers and words."""

    def artifact(self, name: str, folder: Path, metadata: Mapping[str, Any]) -> None:
        """Mirror a folder of files, where `tracker.artifact` asks for it.

        Args:
            name: what it is, `student`.
            folder: has to exist until the run is finished.
            metadata: its description, as plain containers.
        """

    def finish(self, status: str) -> None:
        """End; `status` is that of run.json: `finished`, `failed`, `interrupted`."""
