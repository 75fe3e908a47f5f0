"""Progress of a run, from the files that it writes; cheap enough to read every second."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metakd.errors import UserError
from metakd.runs.folder import open_run

if TYPE_CHECKING:
    from metakd.runs.records_run import RunInfo

__all__ = ["Watch", "result_of", "run_info"]

MEASURES = {"validate/accuracy": max, "validate/mse": min}
TAIL_BYTES = 2048


@dataclass
class Watch:
    """One run's progress, read again at each `look`; of its metrics only what is new.

    Attributes:
        folder: the run's.
        log: what its process prints.
        stage: it is in; empty before the first.
        step: steps of it that are done, None if unknown.
        steps: how many it has, None if unknown.
        best: the best validation of the last stage that was validated, in words.
        left: seconds that the stage still needs, None if unknown.
        validations: of meta-training, by the number of updates done.
    """

    folder: Path
    log: Path
    stage: str = ""
    step: int | None = None
    steps: int | None = None
    best: str = ""
    left: float | None = None
    validations: dict[int, float] = field(default_factory=dict)
    _offset: int = 0
    _in: str = ""
    _first: tuple[float, int] | None = None
    _last: tuple[float, int] | None = None
    _value: float | None = field(default=None)

    def look(self) -> None:
        """Read what was written since the last call."""
        info = run_info(self.folder)
        self.stage, self.steps = info.stage or "", info.stage_steps
        self._read_metrics()
        # What it says last, it says until it has something to log.
        what = "teacher" if not self.stage else "student alone" if self._in == "meta_train" else ""
        if what and self._waits_for(what):
            self.stage = f"waits for the {what}"
        self.step = self.left = None
        if self._last is None or self._in.removesuffix("_alone") != self.stage:
            return
        self.step = self._last[1] + 1
        if self._first is not None and self.steps and self._last[1] > self._first[1]:
            pace = (self._last[0] - self._first[0]) / (self._last[1] - self._first[1])
            self.left = max(0.0, pace * (self.steps - self.step))

    def begin(self) -> None:
        """Forget the pace: another process has resumed the run."""
        self._first = None

    def _waits_for(self, what: str) -> bool:
        """Tell whether the run's process is waiting for a model that another one trains."""
        try:
            with self.log.open("rb") as file:
                file.seek(0, 2)
                file.seek(max(0, file.tell() - TAIL_BYTES))
                last = file.read().splitlines()[-1:]
        except OSError:
            return False
        return any(
            line.startswith(f"{what}: ".encode()) and line.endswith(b"waiting") for line in last
        )

    def _read_metrics(self) -> None:
        path = self.folder / "metrics.jsonl"
        try:
            with path.open("rb") as file:
                if (
                    file.seek(0, 2) < self._offset
                ):  # a resumed run repeats steps since its checkpoint
                    self._offset, self._in, self._first, self._last = 0, "", None, None
                file.seek(self._offset)
                new = file.read()
        except OSError:
            return
        whole = new[: new.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.splitlines():
            try:
                entry = json.loads(line)
                self._take(
                    str(entry["stage"]),
                    (float(entry["time"]), int(entry["step"])),
                    dict(entry["metrics"]),
                )
            except (ValueError, TypeError, KeyError):
                continue  # damaged lines are reported by the reports

    def _take(self, stage: str, moment: tuple[float, int], metrics: dict[str, Any]) -> None:
        if stage != self._in:
            self._in, self._first, self._value = stage, None, None
        self._last = moment
        if self._first is None:
            self._first = moment
        for name, better in MEASURES.items():
            value = metrics.get(name)
            if isinstance(value, int | float):
                if stage == "meta_train":
                    self.validations[moment[1] + 1] = value
                self._value = value if self._value is None else better(self._value, value)
                self.best = _figure(name.removeprefix("validate/"), self._value)


def run_info(folder: Path) -> RunInfo:
    """Return run.json's content; empty if it cannot be read."""
    from metakd.runs.record import read_file
    from metakd.runs.records_run import RunInfo

    try:
        return read_file(folder / "run.json", RunInfo)
    except UserError:
        return RunInfo()


def result_of(folder: Path) -> str:
    """Return a finished run's main result as text; empty if there is none."""
    try:
        head = open_run(folder).read_results().student.headline
    except UserError:
        return ""
    if head is None or head.value is None:
        return ""
    return _figure(head.measure, head.value, head.ci95)


def _figure(name: str, value: float, interval: float | None = None) -> str:
    percent = name == "accuracy"
    words = f"{100 * value:.1f}" if percent else f"{value:.3g}"
    if interval is not None:
        words += f" ± {100 * interval:.1f}" if percent else f" ± {interval:.2g}"
    return f"{words} %" if percent else f"{name} {words}"
