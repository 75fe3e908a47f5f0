"""Progress of a sweep: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Mapping
from typing import TextIO

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from metakd.reports.uncut import print_uncut
from metakd.sweeps.plan import varying
from metakd.sweeps.state import Job, Sweep
from metakd.sweeps.watch import Watch, result_of
from metakd.tracking.progress import clock

__all__ = ["Board", "print_summary"]

LINE_EVERY_S = 30.0
"""Plain output: seconds between two lines on the same job."""

LOOK_EVERY_S = 1.0
AROUND = 8
"""Lines of the terminal that are not rows of the table."""

STYLES = {
    "finished": "green",
    "failed": "red",
    "interrupted": "yellow",
    "running": "bold",
    "pruned": "dim",
}


class Board:
    """Shows the jobs on standard error, until `close`.

    Args:
        sweep: whose jobs they are.
        stream: where to; standard error unless given.
    """

    def __init__(self, sweep: Sweep, stream: TextIO | None = None) -> None:
        self.sweep = sweep
        self.names = names_of(sweep)
        self._console = Console(file=stream or sys.stderr, highlight=False, soft_wrap=True)
        self._watches = {
            job.number: Watch(sweep.run_folder(job), sweep.log(job)) for job in sweep.asked
        }
        self._results: dict[int, str] = {}
        self._looked = 0.0
        self._said: dict[int, float] = {}
        self._live: Live | None = None
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()

    def added(self, job: Job) -> None:
        """Show a job that was added later."""
        self._watches[job.number] = Watch(self.sweep.run_folder(job), self.sweep.log(job))
        self.names = names_of(self.sweep)

    def close(self) -> None:
        """Stop the live display."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def say(self, text: str) -> None:
        """Print a line, above the table if there is one."""
        self._console.print(Text(text))

    def started(self, job: Job, again: bool) -> None:
        """Show that a job has started."""
        self._watches[job.number].begin()
        self._said[job.number] = time.monotonic()
        if self._live is None:
            self.say(f"{self._name(job)}: {'goes on' if again else 'started'}")

    def ended(self, job: Job) -> None:
        """Show that a job has ended."""
        if job.status == "finished":
            found = result_of(self.sweep.run_folder(job))
            self._results[job.number] = found
            text = f"done in {clock(job.seconds)}" + (f", {found}" if found else "")
        else:
            text = f"{job.status}: {job.reason}"
        asked = self.sweep.asked
        over = sum(one.status not in ("waiting", "running") for one in asked)
        self.say(f"{self._name(job)}: {text}  [{over} of {self.sweep.total}]")

    def update(self, running: Mapping[int, float]) -> None:
        """Update, at most every second.

        Args:
            running: by job the seconds for which its process has been running.
        """
        now = time.monotonic()
        if now - self._looked < LOOK_EVERY_S:
            return
        self._looked = now
        due = [n for n in running if now - self._said.get(n, 0.0) >= LINE_EVERY_S]
        for number in running if self._live is not None else due:
            self._watches[number].look()
        if self._live is not None:
            self._live.update(self._table(running), refresh=True)
            return
        for job in self.sweep.asked:
            if job.number in due:
                self._said[job.number] = now
                self.say(f"{self._name(job)}: {self._progress(job.number)}")

    def _name(self, job: Job) -> str:
        words = self.names[job.number]
        return f"job {job.number} ({words})" if words else f"job {job.number}"

    def _progress(self, number: int) -> str:
        watch = self._watches[number]
        words = [watch.stage or "begins"]
        if watch.step is not None:
            words[0] += f" {watch.step}" + (f"/{watch.steps}" if watch.steps else "")
        if watch.best:
            words.append(f"best validation {watch.best}")
        if watch.left is not None:
            words.append(f"{clock(watch.left)} left in this stage")
        return ", ".join(words)

    def _table(self, running: Mapping[int, float]) -> Group:
        jobs = self.sweep.asked
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for title in ("job", "settings", "stage", "steps", "best", "time", "left in stage"):
            end = title not in ("settings", "stage")
            table.add_column(title, justify="right" if end else "left", no_wrap=True)
        shown = self._shown(max(3, self._console.height - AROUND))
        for job in jobs:
            if job.number in shown:
                table.add_row(*self._cells(job, running), style=STYLES.get(job.status))
        counts = [
            f"{sum(job.status == status for job in jobs)} {status}"
            for status in ("finished", "pruned", "running", "failed", "interrupted", "waiting")
            if any(job.status == status for job in jobs)
        ]
        left = self._remaining(running)
        if left is not None:
            counts.append(f"about {clock(left)} left")
        below = f"{self.sweep.folder}: {', '.join(counts)}"
        return Group(table, Text(below, no_wrap=False, overflow="fold"))

    def _cells(self, job: Job, running: Mapping[int, float]) -> list[str]:
        name, watch = self.names[job.number], self._watches[job.number]
        if job.number not in running:
            result = self._results.get(job.number)
            if result is None and job.status == "finished":
                result = self._results[job.number] = result_of(self.sweep.run_folder(job))
            passed = clock(job.seconds) if job.seconds else ""
            return [str(job.number), name, job.status, "", result or "", passed, ""]
        steps = "" if watch.step is None else f"{watch.step}/{watch.steps or '?'}"
        left = "" if watch.left is None else clock(watch.left)
        passed = clock(job.seconds + running[job.number])
        return [str(job.number), name, watch.stage or "begins", steps, watch.best, passed, left]

    def _shown(self, rows: int) -> set[int]:
        """Return the jobs that fit: running ones first, waiting ones last."""
        order = ("running", "failed", "interrupted", "finished", "pruned", "waiting")
        jobs = sorted(
            self.sweep.asked,
            # The latest of the finished jobs, the next ones of the waiting.
            key=lambda j: (
                order.index(j.status),
                j.number if j.status in ("running", "waiting") else -j.number,
            ),
        )
        return {job.number for job in jobs[:rows]}

    def _remaining(self, running: Mapping[int, float]) -> float | None:
        """Return the estimated seconds that all jobs still need; None if no job is finished."""
        done = [j.seconds for j in self.sweep.asked if j.status == "finished" and j.seconds]
        if not done:
            return None
        mean = sum(done) / len(done)
        spent = {j.number: j.seconds + running.get(j.number, 0.0) for j in self.sweep.asked}
        open_jobs = [j.number for j in self.sweep.asked if j.status in ("waiting", "running")]
        work = [max(0.0, mean - spent[n]) for n in open_jobs]
        work += [mean] * (self.sweep.total - len(self.sweep.asked))
        return max(max(work, default=0.0), sum(work) / self.sweep.parallel)


def names_of(sweep: Sweep) -> dict[int, str]:
    """Return by job the settings that differ between jobs; a search's numbers are rounded."""
    jobs = {job.number: job.overrides for job in sweep.asked}
    if sweep.search is None:
        return varying(jobs)
    shared = set(sweep.search.words)
    return {
        number: " ".join(_short(word) for word in words if word not in shared)
        for number, words in jobs.items()
    }


def _short(word: str) -> str:
    key, _, value = word.partition("=")
    return f"{key}={float(value):.4g}" if re.fullmatch(r"-?\d*\.\d{4,}.*", value) else word


def print_summary(sweep: Sweep, console: Console) -> None:
    """Print each job's status, main result and time; below, the reasons of failures."""
    names = names_of(sweep)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("job", "settings", "status", "result", "time"):
        right = title in ("job", "result", "time")
        table.add_column(title, justify="right" if right else "left", no_wrap=True)
    for job in sweep.asked:
        found = result_of(sweep.run_folder(job)) if job.status == "finished" else ""
        passed = clock(job.seconds) if job.seconds else ""
        cells = [str(job.number), names[job.number], job.status, found, passed]
        table.add_row(*(Text(cell) for cell in cells))
    print_uncut(table, console)
    over = ("finished", "failed", "pruned")
    counts = {s: sum(job.status == s for job in sweep.asked) for s in over}
    rest = sweep.total - sum(counts.values())
    lines = [
        f"job {job.number} {job.status}: {job.reason}"
        for job in sweep.asked
        if job.reason and job.status != "pruned"
    ]
    lines.append(
        f"{sweep.folder}: {counts['finished']} of {sweep.total} jobs done, "
        f"{counts['failed']} failed"
        + (f", {counts['pruned']} pruned" if counts["pruned"] else "")
        + (f", {rest} stopped" if rest else "")
    )
    for line in lines:
        console.print(Text(line), soft_wrap=True, highlight=False)
