"""What a stage tells of its progress, to the run's folder, the tracker and the terminal at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from metakd.runs.checkpoints import save_state
from metakd.runs.folder import RunFolder
from metakd.tracking.progress import Bar, Progress
from metakd.tracking.tracker import Tracker

__all__ = ["Recorder", "floats"]


class Recorder:
    """Sends metrics and checkpoints where they belong.

    Args:
        folder: the run's folder, or None (nothing is written).
        tracker: mirror of the metrics, or None.
        progress: progress bars; None: quiet ones.
    """

    def __init__(
        self,
        folder: RunFolder | None = None,
        tracker: Tracker | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.folder = folder
        self.tracker = tracker
        self.progress = progress if progress is not None else Progress(quiet=True)

    def log(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        """Record `metrics` of (stage, step); at most once for each pair."""
        if self.folder is not None:
            self.folder.log(stage, step, metrics)
        if self.tracker is not None:
            self.tracker.log(stage, step, metrics)

    @contextmanager
    def bar(self, stage: str, total: int, title: str | None = None) -> Iterator[Bar]:
        """Mark the run as being in `stage` and show a bar of `total` steps under `title`."""
        if self.folder is not None:
            self.folder.stage(stage.removesuffix("_alone"))
        with self.progress.bar(title or stage.replace("_", " "), total) as bar:
            yield bar

    def checkpoint(self, name: str, state: dict[str, Any]) -> None:
        """Write a checkpoint (`last` or `best`) atomically."""
        if self.folder is not None:
            save_state(self.folder.checkpoints, name, state)

    def figure(self, name: str, path: Path) -> None:
        """Show a figure of the run's folder to the tracker."""
        if self.tracker is not None:
            self.tracker.figure(name, path)

    def say(self, text: str) -> None:
        """Print a line."""
        self.progress.say(text)

    def warn(self, text: str) -> None:
        """Print a warning."""
        self.progress.warn(text)


def floats(terms: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """Return scalar tensors as Python floats."""
    return {name: float(value) for name, value in terms.items()}
