"""sweep.json: the combinations of a multirun and the status of each job, to resume it from."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from metakd.config.declared import is_bookkeeping
from metakd.errors import UserError
from metakd.runs.atomic import write_text
from metakd.runs.process import host_name, process_start

if TYPE_CHECKING:  # pydantic takes a tenth of a second to import; refusing a multirun need not
    from metakd.runs.records_sweep import SearchRecord

__all__ = ["FILE", "Job", "Sweep", "is_outside", "is_sweep", "merged", "setting_of"]

FILE = "sweep.json"
SCHEMA = 1


@dataclass
class Job:
    """One job.

    Attributes:
        number: and name of its folder in the sweep's.
        overrides: what is typed for it.
        status: `waiting`, `running`, `finished`, `failed`, `interrupted` or `pruned`.
        reason: why it failed or stopped, one line.
        pid, process_start, host: the process that runs or ran it.
        seconds: that its processes have taken so far.
        device: the configuration's, which decides whether it is given a GPU.
        asked: whether it belongs to the combinations that were typed last.
    """

    number: int
    overrides: list[str]
    status: str = "waiting"
    reason: str | None = None
    pid: int | None = None
    process_start: str | None = None
    host: str | None = None
    seconds: float = 0.0
    device: str = "auto"
    asked: bool = True


@dataclass
class Sweep:
    """A multirun in its folder.

    Attributes:
        folder: absolute; holds sweep.json, and for job N the run's folder `N` and `N.log`.
        jobs: in the order of their numbers.
        parallel: jobs at a time.
        directory: where it was typed; relative paths of its overrides count from there.
        config_dir: the user's own configuration folder, absolute.
        status: `running`, `finished`, `failed` or `interrupted`.
        search: what is searched and how; None: all jobs are known.
        most: how many jobs there will be, where not all are known yet.
    """

    folder: Path
    jobs: list[Job]
    parallel: int = 1
    directory: str = ""
    config_dir: str | None = None
    status: str = "running"
    start: float = field(default_factory=time.time)
    search: SearchRecord | None = None
    most: int = 0
    _lock: FileLock | None = None

    @property
    def asked(self) -> list[Job]:
        """The jobs that the sweep consists of now."""
        return [job for job in self.jobs if job.asked]

    @property
    def total(self) -> int:
        """Return how many jobs there will be."""
        return max(len(self.asked), self.most)

    def run_folder(self, job: Job) -> Path:
        """Return the job's run folder."""
        return self.folder / str(job.number)

    def log(self, job: Job) -> Path:
        """Return the log file of the job's processes."""
        return self.folder / f"{job.number}.log"

    def save(self) -> None:
        """Write sweep.json, atomically.

        Raises:
            OSError: it cannot be written.
        """
        pid = os.getpid()
        content = {
            "schema": SCHEMA,
            "status": self.status,
            "pid": pid,
            "host": host_name(),
            "process_start": process_start(pid),
            "start": self.start,
            "parallel": self.parallel,
            "directory": self.directory,
            "config_dir": self.config_dir,
            **({} if self.search is None else {"search": self.search.model_dump()}),
            "jobs": [asdict(job) for job in self.jobs],
        }
        write_text(self.folder / FILE, json.dumps(content, indent=2, ensure_ascii=False) + "\n")

    def lock(self) -> None:
        """Lock this sweep; released by `unlock` and by the process's end.

        Raises:
            UserError: another process is at work on it, or the folder cannot be written.
        """
        lock = FileLock(self.folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise UserError(
                f"multirun '{self.folder}' is in progress; wait for it, or stop it first"
            ) from None
        except (OSError, NotImplementedError) as error:
            raise UserError(f"multirun '{self.folder}' cannot be locked: {error}") from error
        self._lock = lock

    def unlock(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    @classmethod
    def opened(cls, folder: Path) -> Sweep:
        """Return the sweep that `folder` holds, locked by this process.

        Raises:
            UserError: there is none, sweep.json is damaged, or another process is at work on it.
        """
        cls.load(folder)  # before a lock is written into a folder without a sweep
        holder = cls(folder.absolute(), [])
        holder.lock()
        try:
            found = cls.load(folder)  # as the last owner of the lock left it
        except BaseException:  # also on Ctrl-C: release the lock
            holder.unlock()
            raise
        found._lock = holder._lock
        return found

    @classmethod
    def load(cls, folder: Path) -> Sweep:
        """Return the sweep that `folder` holds, for reading.

        Raises:
            UserError: there is none, or sweep.json is damaged.
        """
        from metakd.runs.record import read_file
        from metakd.runs.records_sweep import SweepRecord

        path = folder.absolute() / FILE
        found = read_file(path, SweepRecord)
        jobs = [Job(**dict(job)) for job in found.jobs]
        if not (jobs or found.search) or len({job.number for job in jobs}) < len(jobs):
            raise UserError(
                f"'{path}' cannot be read: 'jobs' is empty, or has a number twice; {found.remedy}"
            )
        jobs.sort(key=lambda job: job.number)
        return cls(
            folder.absolute(),
            jobs,
            found.parallel,
            found.directory,
            found.config_dir,
            found.status,
            found.start,
            found.search,
        )

    def match(self, combinations: Sequence[Sequence[str]]) -> list[Job | None]:
        """Return the job of each combination, None for one that has none yet.

        The order of settings, and settings of paths, make no difference.
        """
        left = list(self.jobs)
        found: list[Job | None] = [None] * len(combinations)
        for key in (_same_words, _same_run):
            for i, words in enumerate(combinations):
                if found[i] is None:
                    found[i] = next((j for j in left if key(j.overrides) == key(words)), None)
                    left = [job for job in left if job is not found[i]]
        return found

    def others(self, combinations: Sequence[Sequence[str]]) -> list[str]:
        """Return a line for each combination that is new or no longer there."""
        found = self.match(combinations)
        lines = [
            f"new: {' '.join(words)}"
            for words, job in zip(combinations, found, strict=True)
            if job is None
        ]
        return lines + [
            f"no longer there: job {job.number} ({' '.join(job.overrides)})"
            for job in self.asked
            if not any(job is one for one in found)
        ]

    def adopt(self, combinations: Sequence[Sequence[str]], devices: Sequence[str]) -> None:
        """Make these combinations the sweep's.

        One that has a job keeps it, new ones get the next numbers; jobs of others are left as
        they are.

        Args:
            combinations: the overrides of each job.
            devices: the setting `device` of each.
        """
        for old in self.jobs:
            old.asked = False
        number = max((job.number for job in self.jobs), default=-1) + 1
        given = zip(self.match(combinations), combinations, devices, strict=True)
        for found, words, device in given:
            job = found if found is not None else Job(number, [])
            if found is None:
                self.jobs.append(job)
                number += 1
            job.overrides, job.device, job.asked = list(words), device, True


def is_sweep(folder: Path) -> bool:
    """Tell whether `folder` holds a multirun."""
    return (folder / FILE).is_file()


def merged(words: Sequence[str], extras: Sequence[str] = ()) -> list[str]:
    """Return words and extras, with the last one of each key only."""
    return list({setting_of(word): word for word in (*words, *extras)}.values())


def is_outside(word: str) -> bool:
    """Tell whether an override only sets paths or trackers."""
    return is_bookkeeping(setting_of(word))


def setting_of(word: str) -> str:
    """Return the setting of an override, without its value."""
    return word.partition("=")[0].lstrip("+")


def _same_words(words: Sequence[str]) -> list[str]:
    return sorted(merged(words))


def _same_run(words: Sequence[str]) -> list[str]:
    return sorted(word for word in merged(words) if not is_outside(word))
