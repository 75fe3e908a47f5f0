"""Recording where several processes share a run: process 0 writes, all know the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from torch import nn

from metakd.distributed.group import Group
from metakd.runs.folder import RunFolder
from metakd.runs.interrupts import Stop
from metakd.runs.journal import Journal
from metakd.stages.recorder import Recorder, Value
from metakd.tracking.progress import Progress
from metakd.tracking.tracker import Tracker

__all__ = ["SharedRecorder", "Silent"]


class Silent(Progress):
    """Says nothing at all: another process does."""

    def __init__(self) -> None:
        super().__init__(quiet=True)

    def warn(self, text: str) -> None:
        """Say nothing."""


class SharedRecorder(Recorder):
    """A recorder of one of several processes.

    Args:
        group: the processes.
        folder: the run's folder in process 0, None in the others; likewise what follows.
        tracker: mirror of the metrics.
        progress: progress bars.
        journal: the run's checkpoints.
        stop: whether this process was asked to end.
    """

    def __init__(
        self,
        group: Group,
        folder: RunFolder | None = None,
        tracker: Tracker | None = None,
        progress: Progress | None = None,
        journal: Journal | None = None,
        stop: Stop | None = None,
    ) -> None:
        super().__init__(folder, tracker, Silent() if progress is None else progress, journal, stop)
        self.group = group

    def alone(self) -> Recorder:
        """Return the recorder of process 0 for what it does by itself."""
        return Recorder(self.folder, self.tracker, self.progress, self.journal, self._stop)

    def whole(self) -> AbstractContextManager[None]:
        """See `Recorder`: at the block's end all processes end, if one was asked to."""
        return self._ending()

    @contextmanager
    def _ending(self) -> Iterator[None]:
        yield
        self.group.check()

    def finished(self, stage: str) -> dict[str, Any] | None:
        """See `Recorder`; read by process 0."""
        return self.group.first(lambda: super(SharedRecorder, self).finished(stage))

    def begun(self, stage: str) -> bool:
        """See `Recorder`; read by process 0."""
        return self.group.first(lambda: super(SharedRecorder, self).begun(stage))

    def last(self, stage: str) -> dict[str, Any] | None:
        """See `Recorder`; read by process 0."""
        return self.group.first(lambda: super(SharedRecorder, self).last(stage))

    def by_first(self, network: nn.Module, train: Callable[[Recorder], Value]) -> Value:
        """See `Recorder`."""

        def trained() -> tuple[Value, Mapping[str, Any]]:
            value = train(self.alone())
            return value, {n: t.detach().cpu() for n, t in network.state_dict().items()}

        value, weights = self.group.first(trained)
        network.load_state_dict(weights)
        return value
