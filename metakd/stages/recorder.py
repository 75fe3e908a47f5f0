"""What a stage tells of its progress, to the run's folder, the tracker and the terminal at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn

from metakd.distributed.group import ALONE, Group
from metakd.runs.checkpoints import save_state
from metakd.runs.folder import RunFolder
from metakd.runs.interrupts import Stop
from metakd.runs.journal import Journal
from metakd.tracking.pace import Phases
from metakd.tracking.progress import Bar, Progress
from metakd.tracking.tracker import Tracker

if TYPE_CHECKING:
    from metakd.data.tasks import Batch
    from metakd.distillation.objective import Answers
    from metakd.stages.precision import Precision
    from metakd.stages.training import Training

__all__ = ["Recorder", "floats"]

Value = TypeVar("Value")


class Recorder:
    """Sends metrics and checkpoints where they belong.

    Args:
        folder: the run's folder, or None (nothing is written).
        tracker: mirror of the metrics, or None.
        progress: progress bars; None: quiet ones.
        journal: the run's checkpoints, which tell what was done before; None: nothing was, and
            nothing is kept.
        stop: whether the run was asked to end; None: nobody can ask.

    Attributes:
        estimate: what the pre-flight check expected of the stage, for a run that has no memory.
        group: the processes that share the work that is recorded.
    """

    group: Group = ALONE

    def __init__(
        self,
        folder: RunFolder | None = None,
        tracker: Tracker | None = None,
        progress: Progress | None = None,
        journal: Journal | None = None,
        stop: Stop | None = None,
    ) -> None:
        self.folder = folder
        self.tracker = tracker
        self.progress = progress if progress is not None else Progress(quiet=True)
        self.journal = journal
        self.estimate = ""
        self._stop = stop

    def log(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        """Record `metrics` of (stage, step); at most once for each pair."""
        if self.folder is not None:
            self.folder.log(stage, step, metrics)
        if self.tracker is not None:
            self.tracker.log(stage, step, metrics)

    @contextmanager
    def bar(
        self,
        stage: str,
        total: int,
        title: str | None = None,
        start: int = 0,
        phases: Phases = (),
    ) -> Iterator[Bar]:
        """Mark the run as being in `stage` and show a bar of `total` steps under `title`.

        `start` steps were done before, by an earlier process; `phases` say which cost more.
        """
        if self.folder is not None:
            self.folder.stage(stage.removesuffix("_alone"), total)
        with self.progress.bar(title or stage.replace("_", " "), total, start, phases) as bar:
            yield bar

    def whole(self) -> AbstractContextManager[None]:
        """Let the block run to its end before Ctrl-C or SIGTERM ends the run."""
        return nullcontext() if self._stop is None else self._stop.held()

    def finished(self, stage: str) -> dict[str, Any] | None:
        """Return what an earlier process kept of `stage`, None if it has to be done."""
        return None if self.journal is None else self.journal.finished(stage)

    def begun(self, stage: str) -> bool:
        """Tell whether an earlier process has done part of `stage`, or all of it."""
        return self.journal is not None and stage in self.journal.kept()

    def finish(self, stage: str, state: Mapping[str, Any]) -> None:
        """Keep the outcome of a stage that is done."""
        if self.journal is not None:
            self._sync()
            self.journal.finish(stage, state)

    def last(self, stage: str) -> dict[str, Any] | None:
        """Return the state in the middle of `stage` that an earlier process left, or None."""
        return None if self.journal is None else self.journal.last(stage)

    def alone(self) -> Recorder:
        """Return the recorder of what one process does by itself."""
        return self

    def by_first(self, network: nn.Module, train: Callable[[Recorder], Value]) -> Value:
        """Let process 0 train `network` on its own; afterwards all have its weights and `Value`.

        Args:
            network: trained in place.
            train: does it, with the recorder that it is given; returns plain values.
        """
        return train(self)

    def about_to_train(
        self,
        training: Training,
        batch_at: Callable[[int], Batch],
        answers_to: Callable[[Any], Answers] | None,
        steps: int,
        precision: Precision,
    ) -> None:
        """See what a stage is about to do; a recorder that only looks ends it here (`Replay`)."""

    def due(self, step: int) -> bool:
        """Tell whether a checkpoint is due after `step` updates of the stage."""
        return self.journal is not None and self.journal.due(step)

    def checkpoint(self, state: Mapping[str, Any], best: Mapping[str, Any] | None = None) -> None:
        """Write the state in the middle of a stage and, if it is a new one, the best."""
        if self.journal is not None:
            self._sync()
            self.journal.save(state, best)

    def keep_failure(self, state: Mapping[str, Any]) -> None:
        """Keep the state in which an update was not finite, to look at it (`replay=`)."""
        if self.folder is not None:
            save_state(self.folder.checkpoints, "nonfinite", state)

    def _sync(self) -> None:
        # What a checkpoint has behind it must not be missing from the metrics.
        if self.folder is not None:
            self.folder.sync()

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
