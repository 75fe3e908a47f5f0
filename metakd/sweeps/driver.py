"""Runs the jobs of a multirun, whether or not any of them fails."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Protocol

from rich.console import Console

from metakd.errors import UserError
from metakd.runs.folder import RunFolder
from metakd.runs.interrupts import interrupts
from metakd.runs.process import ended_how, host_name, is_alive, process_start
from metakd.sweeps.board import Board, print_summary
from metakd.sweeps.forks import Forks, interpreter
from metakd.sweeps.pool import Ended, Pool, gpus, shares
from metakd.sweeps.state import Job, Sweep, is_outside, merged
from metakd.sweeps.watch import run_info

__all__ = ["Driver", "Source", "command_of", "is_done", "outlook", "why_damaged"]

POLL_S = 0.1
LOOK_S = 1.0
"""Seconds between two checks of a job that an earlier sweep left running."""

INTERRUPTED = 130
OVER = ("finished", "pruned")
"""Statuses of jobs that are not resumed."""

Command = Callable[[Sweep, Job, bool, Sequence[str]], list[str]]
"""From sweep, job, whether it resumes a run, and further words, to a command line."""


def command_of(sweep: Sweep, job: Job, again: bool, extras: Sequence[str]) -> list[str]:
    """Return the command line of a job's process; see `metakd.cli.job`."""
    folder = sweep.run_folder(job)
    if again:
        outside = [word for word in job.overrides if is_outside(word)]
        words = [f"resume={folder}", *merged(outside, extras)]
    else:
        words = [*job.overrides, f"hydra.run.dir={folder}"]
    return [
        *interpreter(),
        *("metakd.cli.job", str(os.getpid()), sweep.directory, "train", *words),
        *([] if sweep.config_dir is None else ["--config-dir", sweep.config_dir]),
    ]


class Source(Protocol):
    """Adds jobs while others run: a search."""

    def ask(self) -> Job | None:
        """Return the next job, which the sweep does not hold yet; None if there are no more."""

    def look(self, running: Collection[int]) -> list[int]:
        """Return the running jobs that are to be pruned."""

    def tell(self, job: Job) -> None:
        """Take notice that a job has ended; its status may be changed to `pruned`."""


class Driver:
    """Runs a sweep.

    Args:
        sweep: locked by this process.
        extras: overrides for resumed jobs.
        changed: whether these may change settings that affect results.
        command: what to run for a job; `command_of` unless given.
        source: of further jobs, if not all are known beforehand.
        subcommand: of metakd that resumes the sweep, for messages.
    """

    copied: tuple[str, Sequence[str]] = ("metakd.cli.job", ("metakd.sweeps.imported",))
    """Module that a job runs, and modules that are imported once for all jobs (see `Forks`)."""

    def __init__(
        self,
        sweep: Sweep,
        extras: Sequence[str] = (),
        changed: bool = False,
        command: Command | None = None,
        source: Source | None = None,
        subcommand: str = "train",
    ) -> None:
        self.sweep = sweep
        self.subcommand = subcommand
        self.source = source
        self.extras = [*extras, *(["resume_changed=true"] if changed else [])]
        self.command = command or command_of
        size = min(sweep.parallel, sweep.total)
        self.pool = Pool(size)
        wants_gpu = source is not None or any(j.device in ("auto", "cuda") for j in sweep.asked)
        self.shares = shares(size, gpus() if wants_gpu else [])
        self._left: list[Job] = []
        self._more = False
        self._foreign: list[Job] = []
        self._began: dict[int, int] = {}
        self._looked = 0.0
        self._unsaved = False

    def carry_out(self) -> int:
        """Run the remaining jobs; return the exit status: 0, or 1 if a job failed.

        Raises:
            UserError: the folder cannot be written.
            KeyboardInterrupt: the jobs were asked to end, and have.
        """
        sweep = self.sweep
        sweep.status = "running"
        for job in sweep.asked:
            if job.status not in OVER:
                job.status, job.reason = "waiting", None
        try:
            sweep.save()
        except OSError as error:
            raise UserError(f"'{sweep.folder}' cannot be written: {error.strerror}") from error
        self._left = [job for job in sweep.asked if job.status != "pruned"]
        self._more = self.source is not None
        board = Board(sweep)
        self.pool.forks = Forks(board.say, *self.copied)
        try:
            with interrupts() as stop:
                try:
                    while self._left or self._more or self._foreign or self.pool.running():
                        with stop.held():  # record the process that was just started
                            self._step(board)
                        time.sleep(POLL_S)
                except BaseException:  # also on Ctrl-C: leave no job running
                    board.close()
                    self._stop(board)
                    raise
        finally:
            board.close()
            self.pool.close()
        print_summary(sweep, Console())
        bad = [job for job in sweep.asked if job.status not in OVER]
        sweep.status = "failed" if bad else "finished"
        self._save(board)
        if bad:
            board.say(f"to run the remaining jobs: {self._resume_line()}")
        return 1 if bad else 0

    def _step(self, board: Board) -> None:
        for ended in self.pool.ended():
            self._settle(ended, board)
        now = time.monotonic()
        if now - self._looked >= LOOK_S:
            self._looked = now
            self._left = [*self._foreign, *self._left]  # `_begin` checks them again
            self._foreign = []
            self._end_pruned()
        while len(self.pool.running()) + len(self._foreign) < self.pool.size:
            if not self._left and not self._think(board):
                break
            if not self._begin(self._left[0], board):
                break
        board.update(self.pool.running())

    def _think(self, board: Board) -> bool:
        """Let the source add a job; return false if there is none."""
        job = self.source.ask() if self.source is not None and self._more else None
        if job is None:
            self._more = False
            return False
        self.sweep.jobs.append(job)
        self._left.append(job)
        board.added(job)
        return True

    def _end_pruned(self) -> None:
        """Ask the jobs to end that the source prunes."""
        if self.source is not None:
            for number in self.source.look(self.pool.running()):
                self.pool.end(number)

    def _over(self, job: Job, board: Board) -> None:
        """Record and show that a job has ended."""
        if self.source is not None:
            self.source.tell(job)
        self._save(board)
        board.ended(job)

    def _begin(self, job: Job, board: Board) -> bool:
        """Start the next job, unless it is finished or running; false: it has to wait."""
        state = outlook(self.sweep, job)
        if state == "finished":
            self._left.remove(job)
            if job.status != "finished":
                job.status, job.reason, job.pid = "finished", None, None
                self._over(job, board)
            return True
        if state == "busy":
            self._left.remove(job)
            if job.status != "running":
                board.say(
                    f"job {job.number} is still running from an earlier sweep; waiting for it"
                )
            job.status = "running"
            self._foreign.append(job)
            return True
        if state == "damaged":
            self._left.remove(job)
            job.status, job.pid = "failed", None
            job.reason = why_damaged(self.sweep.run_folder(job))
            self._over(job, board)
            return True
        slot = self.pool.free()
        assert slot is not None
        again = state == "resume"
        log = self.sweep.log(job)
        share = dict(self.shares[slot])
        if job.device not in ("auto", "cuda"):  # cuda:1 is a number among all GPUs
            share.pop("CUDA_VISIBLE_DEVICES", None)
        command = self.command(self.sweep, job, again, self.extras if again else ())
        if not self.pool.ready(command, share):
            return False
        self._left.remove(job)
        try:
            self._began[job.number] = log.stat().st_size if log.exists() else 0
            job.pid = self.pool.start(job.number, slot, command, log, share)
        except OSError as error:
            job.status, job.reason = "failed", f"cannot be started: {error.strerror or error}"
            self._over(job, board)
            return True
        job.status, job.reason = "running", None
        job.host, job.process_start = host_name(), process_start(job.pid)
        self._save(board)
        board.started(job, again)
        return True

    def _settle(self, ended: Ended, board: Board) -> None:
        """Record how a job's process ended."""
        job = next(job for job in self.sweep.jobs if job.number == ended.number)
        job.seconds += ended.seconds
        job.pid = None
        if ended.status == 0:
            job.status, job.reason = "finished", None
        elif ended.status == INTERRUPTED:
            job.status, job.reason = "interrupted", "interrupted"
        else:
            job.status, job.reason = "failed", self._reason(job, ended.status)
        self._over(job, board)

    def _reason(self, job: Job, status: int) -> str:
        """Return the job's last error message, or how its process ended."""
        if status < 0:
            return ended_how(status)
        try:
            with self.sweep.log(job).open("rb") as file:
                file.seek(self._began.get(job.number, 0))
                lines = file.read().decode("utf-8", "replace").splitlines()
        except OSError:
            lines = []
        said = [line.removeprefix("metakd: ") for line in lines if line.startswith("metakd: ")]
        error = run_info(self.sweep.run_folder(job)).error
        return said[-1] if said else str(error or ended_how(status))

    def _stop(self, board: Board) -> None:
        """Ask all jobs to end and wait until they have."""
        running = len(self.pool.running()) + len(self._foreign)
        if running:
            board.say(
                f"stopping {running} jobs after they have saved; press Ctrl-C again to kill them"
            )
        for job in self._foreign:
            if job.pid is not None and _lives(job):
                with contextlib.suppress(OSError):
                    os.kill(job.pid, signal.SIGTERM)
        for ended in self.pool.stop():
            self._settle(ended, board)
        for job in self._foreign:
            while _lives(job):
                time.sleep(POLL_S)
            job.status, job.pid = "interrupted", None
        self.sweep.status = "interrupted"
        self._save(board)
        board.say(f"interrupted; resume with: {self._resume_line()}")

    def _resume_line(self) -> str:
        return f"metakd {self.subcommand} {shlex.quote(f'resume={self.sweep.folder}')}"

    def _save(self, board: Board) -> None:
        """Write sweep.json; if the disk is full, jobs go on: their folders hold their state."""
        try:
            self.sweep.save()
        except OSError as error:
            if not self._unsaved:
                board.say(f"warning: '{self.sweep.folder}' cannot be written ({error.strerror})")
            self._unsaved = True


def outlook(sweep: Sweep, job: Job) -> str:
    """Return what a job needs, according to its folder and not to its recorded status.

    Returns:
        `new`, `resume`, `finished`, `damaged`: it finished, but has no results (any more); or
        `busy`: a process that an earlier sweep left is at work.
    """
    if _lives(job):
        return "busy"
    folder = sweep.run_folder(job)
    if not (folder / "run.json").exists():
        return "new"
    run = RunFolder(folder)
    try:
        run.lock()
    except UserError:
        return "busy"
    except (OSError, NotImplementedError):
        return "resume"  # which reports the error
    try:
        kept = (folder / ".hydra" / "config.yaml").exists() or any(run.checkpoints.glob("*.pt"))
        if not kept and not (folder / "results.json").exists():
            (folder / "run.json").unlink()  # killed before it wrote run.json
            return "new"
        if run_info(folder).status != "finished":
            return "resume"
        return "finished" if why_damaged(folder) is None else "damaged"
    finally:
        run.unlock()


def is_done(folder: Path) -> bool:
    """Tell whether the run in `folder` is finished, and its results can be read."""
    return run_info(folder).status == "finished" and why_damaged(folder) is None


def why_damaged(folder: Path) -> str | None:
    """Return why a finished run has no results, and what to do; None if it has them."""
    try:
        RunFolder(folder).read_results()
    except UserError as error:
        there = (folder / "results.json").exists()
        why = str(error) if there else f"'{folder}' finished, but its results.json is missing"
        return f"{why}; remove that folder, and the job is done again"
    return None


def _lives(job: Job) -> bool:
    """Tell whether the process that was at work on a job still is."""
    if job.pid is None or job.host is None or job.process_start is None:
        return False
    return is_alive(job.pid, job.host, job.process_start) is True
