"""Processes, a bounded number at a time, each with its share of cores and GPUs."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from metakd.sweeps.forks import Forked, Forks

__all__ = ["Ended", "Pool", "cores", "gpus", "shares"]

GPU_QUERY_S = 20
THREADS = "OMP_NUM_THREADS"
VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Ended:
    """A process that has ended.

    Attributes:
        number: of its job.
        status: exit status; negative: the signal that killed it.
        seconds: that it took.
    """

    number: int
    status: int
    seconds: float


@dataclass
class _Running:
    process: subprocess.Popen[bytes] | Forked
    slot: int
    began: float


class Pool:
    """Runs commands, at most `size` at a time.

    Each is in a process group of its own: Ctrl-C on the terminal reaches the sweep alone, which
    passes it on once (a second signal would end a run without saving).

    Args:
        size: how many at a time.
        forks: starts those that it takes as forks of a process that has imported everything; None:
            all are new interpreters.
    """

    def __init__(self, size: int, forks: Forks | None = None) -> None:
        self.size = size
        self.forks = forks
        self._running: dict[int, _Running] = {}

    def free(self) -> int | None:
        """Return the lowest free slot."""
        taken = {running.slot for running in self._running.values()}
        return next((slot for slot in range(self.size) if slot not in taken), None)

    def ready(self, command: Sequence[str], variables: Mapping[str, str]) -> bool:
        """Tell whether `command` can start now: the process to fork from may still be importing."""
        environment = {**os.environ, **variables}
        if self.forks is None or not self.forks.takes(command, environment):
            return True
        return self.forks.ready(environment)

    def start(
        self,
        number: int,
        slot: int,
        command: Sequence[str],
        log: Path,
        variables: Mapping[str, str],
    ) -> int:
        """Start the process of job `number`; return its id.

        Args:
            number: of the job; it must not be running.
            slot: a free one.
            command: the program and its arguments.
            log: file to which its standard output and error are appended.
            variables: of its environment, beside those of this process.

        Raises:
            OSError: it cannot be started.
        """
        environment = {**os.environ, **variables}
        process: subprocess.Popen[bytes] | Forked | None = None
        with log.open("ab") as file:
            if self.forks is not None and self.forks.takes(command, environment):
                process = self.forks.start(command, file, environment)
            if process is None:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=file,
                    env=environment,
                    process_group=0 if os.name == "posix" else None,
                )
        self._running[number] = _Running(process, slot, time.monotonic())
        return process.pid

    def running(self) -> dict[int, float]:
        """Return by job the seconds for which its process has been running."""
        now = time.monotonic()
        return {number: now - one.began for number, one in self._running.items()}

    def ended(self) -> list[Ended]:
        """Return the processes that have ended since the last call."""
        found = []
        for number, one in list(self._running.items()):
            status = one.process.poll()
            if status is not None:
                del self._running[number]
                found.append(Ended(number, status, time.monotonic() - one.began))
        if self.forks is not None:
            self.forks.collect()
        return found

    def end(self, number: int) -> None:
        """Send SIGTERM to the process of job `number`."""
        if number in self._running:
            self._running[number].process.terminate()

    def stop(self) -> list[Ended]:
        """Send SIGTERM to all, wait until they have saved and ended, and return them."""
        for one in self._running.values():
            one.process.terminate()
        for one in self._running.values():
            one.process.wait()
        return self.ended()

    def close(self) -> None:
        """Release what only serves to start processes."""
        if self.forks is not None:
            self.forks.close()


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def gpus() -> list[str]:
    """Return the names of the CUDA GPUs that jobs may use, without importing torch.

    Those of CUDA_VISIBLE_DEVICES where that is set, else what `nvidia-smi` lists.
    """
    typed = os.environ.get(VISIBLE)
    if typed is not None:
        names = [name.strip() for name in typed.split(",")]
        # CUDA itself takes the names up to the first invalid one.
        return names[: next((i for i, n in enumerate(names) if n in ("", "-1")), len(names))]
    try:
        done = subprocess.run(
            ["nvidia-smi", "--list-gpus"],
            capture_output=True,
            text=True,
            timeout=GPU_QUERY_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    lines = [line for line in done.stdout.splitlines() if line.startswith("GPU ")]
    return [str(number) for number in range(len(lines))]


def shares(parallel: int, devices: Sequence[str]) -> list[dict[str, str]]:
    """Return for each slot the variables that give its jobs their share of the machine.

    A single job at a time keeps all cores, so that it is the run that `metakd train` would do.
    Variables that the user has set are kept.

    Args:
        parallel: number of slots.
        devices: the GPUs; each slot is given one, in turn.
    """
    found: list[dict[str, str]] = []
    for slot in range(parallel):
        share = {}
        if parallel > 1 and THREADS not in os.environ:
            share[THREADS] = str(max(1, cores() // parallel))
        if devices:
            share[VISIBLE] = devices[slot % len(devices)]
        found.append(share)
    return found
