"""Progress of a run: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol, TextIO

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
)
from rich.progress import Progress as RichProgress
from rich.text import Text

from metakd.tracking.pace import Pace, Phases
from metakd.tracking.terminal import Terminal

__all__ = ["Bar", "Progress", "clock"]

LINE_EVERY_S = 10.0
"""Plain output: seconds between two lines on the same stage."""

LINE = 100
"""Plain output: characters of a line."""

TIMING = 23
"""Most characters of rate and time left beside a bar: ``12.3 s/step 10:14:41 left``."""

FIRST = ("loss", "validate/accuracy", "validate/mse", "student/accuracy", "teacher/accuracy")
"""Metrics in order of importance; those without room are left out."""

NAMES = {
    "student/accuracy": "accuracy",
    "validate/accuracy": "val",
    "validate/mse": "val error",
    "teacher/accuracy": "teacher",
}
"""Short names."""


class Bar(Protocol):
    """The progress of one stage."""

    def advance(self, steps: int = 1, metrics: Mapping[str, float] | None = None) -> None:
        """Advance by `steps`; show `metrics` until newer ones come."""
        ...


class Progress:
    """Shows the progress of a run on standard error; results go to standard output.

    Args:
        quiet: print only warnings.
        stream: where to; standard error unless given.
    """

    def __init__(self, quiet: bool = False, stream: TextIO | None = None) -> None:
        self.quiet = quiet
        self._console = Terminal(file=stream or sys.stderr, highlight=False, soft_wrap=True)

    @contextmanager
    def bar(self, stage: str, total: int, start: int = 0, phases: Phases = ()) -> Iterator[Bar]:
        """Show the progress of `stage` while the block runs.

        Args:
            stage: its name.
            total: its number of steps.
            start: steps done before (a resumed run); they do not count for the rate.
            phases: of steps that cost differently, for the time that is left.
        """
        pace = Pace(total, start, time.monotonic(), phases)
        if self.quiet:
            yield _NoBar()
        elif self._console.is_terminal:
            width = self._console.width
            bar = 28 if width >= 120 else 10 if width >= 90 else 8
            room = width - (4 + len(stage) + bar + 2 * len(str(total)) + 1 + TIMING + 5)
            columns: list[ProgressColumn] = [
                SpinnerColumn(),
                TextColumn("[bold]{task.description}", markup=True),
                BarColumn(bar_width=bar),
                MofNCompleteColumn(),
                _Timing(pace),
                TextColumn("[dim]{task.fields[metrics]}"),
            ]
            with RichProgress(*columns, console=self._console, refresh_per_second=5) as rich:
                task = rich.add_task(stage, total=total, completed=start, metrics="")
                yield _RichBar(rich, task, pace, max(room, 0))
        else:
            plain = _PlainBar(self._print, stage, pace)
            yield plain
            plain.end()

    def say(self, text: str) -> None:
        """Print a line, above a bar that is being shown."""
        if not self.quiet:
            self._print(text)

    def warn(self, text: str) -> None:
        """Print a warning; not silenced by `quiet`."""
        self._console.print(Text.assemble(("warning: ", "yellow"), text))

    def _print(self, text: str) -> None:
        self._console.print(Text(text))


class _NoBar:
    """Shows nothing."""

    def advance(self, steps: int = 1, metrics: Mapping[str, float] | None = None) -> None:
        """Ignore the progress."""


class _RichBar:
    """A progress bar on a terminal."""

    def __init__(self, rich: RichProgress, task: TaskID, pace: Pace, room: int) -> None:
        self._rich = rich
        self._task = task
        self._pace = pace
        self._room = room
        self._metrics: dict[str, float] = {}

    def advance(self, steps: int = 1, metrics: Mapping[str, float] | None = None) -> None:
        """Advance the bar."""
        self._pace.moved(steps, time.monotonic())
        if metrics:
            self._metrics |= metrics
            words = _words(self._metrics, self._room)
            self._rich.update(self._task, advance=steps, metrics=words)
        else:
            self._rich.update(self._task, advance=steps)


class _PlainBar:
    """Lines for a log file: the first after `LINE_EVERY_S`, and one at the end."""

    def __init__(self, say: _Say, stage: str, pace: Pace) -> None:
        self._say = say
        self._stage = stage
        self._pace = pace
        self._said = time.monotonic()
        self._metrics: dict[str, float] = {}

    def advance(self, steps: int = 1, metrics: Mapping[str, float] | None = None) -> None:
        """Count, and print a line if the last one is some time ago."""
        now = time.monotonic()
        self._pace.moved(steps, now)
        self._metrics |= metrics or {}
        if now - self._said < LINE_EVERY_S:
            return
        self._said = now
        self._line(_timing(self._pace, now))

    def end(self) -> None:
        """Print the last line."""
        self._line(clock(self._pace.elapsed(time.monotonic())))

    def _line(self, timing: str) -> None:
        line = f"{self._stage}: {self._pace.done}/{self._pace.total}  {timing}"
        words = _words(self._metrics, LINE - len(line) - 2)
        self._say(f"{line}  {words}" if words else line)


class _Say(Protocol):
    def __call__(self, text: str) -> None: ...


class _Timing(ProgressColumn):
    """Rate and time left; at the end the time taken."""

    def __init__(self, pace: Pace) -> None:
        super().__init__()
        self._pace = pace

    def render(self, task: Task) -> Text:
        """Return both as text of fixed width."""
        now = time.monotonic()
        over = self._pace.done >= self._pace.total
        text = clock(self._pace.elapsed(now)) if over else _timing(self._pace, now)
        return Text(text.ljust(TIMING), style="cyan")


def _timing(pace: Pace, now: float) -> str:
    left = pace.left(now)
    if left is None:
        return "…"
    return f"{_rate_words(pace.rate())}, {clock(left)} left"


def _rate_words(rate: float) -> str:
    if rate >= 1:
        return f"{rate:.1f}/s" if rate < 100 else f"{rate:.0f}/s"
    return f"{1 / rate:.1f} s/step" if rate > 0 else "…"


def clock(seconds: float) -> str:
    """Return e.g. ``4:10`` or ``1:02:00``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _words(metrics: Mapping[str, float], room: int) -> str:
    """Return e.g. ``loss 0.312  accuracy 81.2 %``: as many metrics as there is room for."""
    text = ""
    others = [name for name in metrics if name not in FIRST]
    for name in [*(name for name in FIRST if name in metrics), *others]:
        short = NAMES.get(name, name.replace("/", " "))
        percent = name.endswith("accuracy")
        value = f"{100 * metrics[name]:.1f} %" if percent else f"{metrics[name]:.3g}"
        longer = f"{text}  {short} {value}" if text else f"{short} {value}"
        if len(longer) > room:
            break
        text = longer
    return text
