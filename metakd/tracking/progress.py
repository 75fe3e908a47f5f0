"""Progress of a run for whoever watches: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from rich.text import Text

__all__ = ["Bar", "Progress"]

LINE_EVERY_S = 10.0
"""Plain output: seconds between two lines of the same bar."""


class Bar(Protocol):
    """The progress of one stage."""

    def advance(self, steps: int = 1, metrics: Mapping[str, float] | None = None) -> None:
        """Move on by `steps`; show `metrics` until newer ones come."""
        ...


class Progress:
    """Tells a person how far a run is, on standard error; results go to standard output.

    Args:
        quiet: say nothing but warnings.
        stream: where to; standard error unless given.
    """

    def __init__(self, quiet: bool = False, stream: TextIO | None = None) -> None:
        self.quiet = quiet
        self._console = Console(file=stream or sys.stderr, highlight=False, soft_wrap=True)

    @contextmanager
    def bar(self, stage: str, total: int, start: int = 0) -> Iterator[Bar]:
        """Show the progress of `stage` while the block runs.

        Args:
            stage: its name.
            total: its number of steps.
            start: steps done before (a resumed run); they do not count for the rate.
        """
        if self.quiet:
            yield _NoBar()
        elif self._console.is_terminal:
            columns: list[ProgressColumn] = [
                SpinnerColumn(),
                TextColumn("[bold]{task.description}"),
                BarColumn(bar_width=28),
                MofNCompleteColumn(),
                _RateColumn(),
                TimeRemainingColumn(compact=True, elapsed_when_finished=True),
                TextColumn("[dim]{task.fields[metrics]}"),
            ]
            with RichProgress(*columns, console=self._console, refresh_per_second=5) as rich:
                task = rich.add_task(stage, total=total, completed=start, metrics="")
                yield _RichBar(rich, task)
        else:
            plain = _PlainBar(self._print, stage, total, start)
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
    """A line of a terminal that is drawn anew."""

    def __init__(self, rich: RichProgress, task: TaskID) -> None:
        self._rich = rich
        self._task = task

    def advance(self, steps: int = 1, metrics: Mapping[str, float] | None = None) -> None:
        """Move the bar."""
        if metrics:
            self._rich.update(self._task, advance=steps, metrics=_words(metrics))
        else:
            self._rich.update(self._task, advance=steps)


class _PlainBar:
    """Lines for a log file: the first after `LINE_EVERY_S`, and one at the end."""

    def __init__(self, say: _Say, stage: str, total: int, start: int) -> None:
        self._say = say
        self._stage = stage
        self._total = total
        self._start = self._done = start
        self._began = self._said = time.monotonic()
        self._metrics: dict[str, float] = {}

    def advance(self, steps: int = 1, metrics: Mapping[str, float] | None = None) -> None:
        """Count, and print a line if the last one is some time ago."""
        self._done += steps
        if metrics:
            self._metrics = dict(metrics)
        now = time.monotonic()
        if now - self._said < LINE_EVERY_S:
            return
        self._said = now
        seconds = now - self._began
        rate = (self._done - self._start) / seconds
        left = (self._total - self._done) / rate if rate > 0 else 0.0
        self._line(f"{_rate_words(rate)}, {_clock(left)} left")

    def end(self) -> None:
        """Print the last line."""
        self._line(f"{_clock(time.monotonic() - self._began)}")

    def _line(self, timing: str) -> None:
        metrics = f"  {_words(self._metrics)}" if self._metrics else ""
        self._say(f"{self._stage}: {self._done}/{self._total}  {timing}{metrics}")


class _Say(Protocol):
    def __call__(self, text: str) -> None: ...


class _RateColumn(ProgressColumn):
    """Steps in a second, or seconds of a step."""

    def render(self, task: Task) -> Text:
        """Return the rate as text."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else _rate_words(speed), style="cyan")


def _rate_words(rate: float) -> str:
    if rate >= 1:
        return f"{rate:.1f}/s" if rate < 100 else f"{rate:.0f}/s"
    return f"{1 / rate:.1f} s/step" if rate > 0 else "…"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _words(metrics: Mapping[str, float]) -> str:
    """Return e.g. ``loss 0.312  accuracy 81.2 %``."""
    words = []
    for name, value in metrics.items():
        short = name.removeprefix("student/").replace("/", " ")
        words.append(
            f"{short} {100 * value:.1f} %" if name.endswith("accuracy") else f"{short} {value:.3g}"
        )
    return "  ".join(words)
