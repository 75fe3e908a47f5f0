"""Jobs as forks of a process that has imported everything; the client of `server`.

The time for imports (six seconds, half of them for torch) is spent once. On Linux only: elsewhere
fork is missing or not safe with the libraries in use, and every job is a new interpreter.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import metakd
from metakd.runs.process import ended_how
from metakd.sweeps.server import LONGEST
from metakd.sweeps.tie import take_orphans_in

__all__ = ["Forked", "Forks", "interpreter"]

LATE = ("CUDA_VISIBLE_DEVICES",)
"""Environment variables that are read after imports, when a GPU is first used."""

PATIENCE_S = 300.0
"""Seconds that imports may take; from a network file system it can be minutes."""

ANSWER_S = 30.0
RESTARTS = 3


def interpreter() -> list[str]:
    """Return the first words of the command line of every job's process."""
    # -P: what lies where the command was typed is not imported in place of installed packages.
    here = Path(metakd.__file__).parents[1] == Path.cwd()
    return [sys.executable, *([] if here else ["-P"]), "-m"]


class Forked:
    """A running fork, with the interface of `subprocess.Popen`.

    Attributes:
        pid: its id, and its process group's.
        returncode: its exit status, negative: the signal that killed it; None: not known yet.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit status if it has ended."""
        return self._look(os.WNOHANG)

    def wait(self) -> int:
        """Wait until it has ended and return the exit status."""
        status = self._look(0)
        assert status is not None
        return status

    def terminate(self) -> None:
        """Ask it to end, unless it has."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)

    def _look(self, options: int) -> int | None:
        if self.returncode is None:
            try:
                pid, status = os.waitpid(self.pid, options)
            except ChildProcessError:  # already reaped, as with Popen
                self.returncode = 0
            else:
                if pid:
                    self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


class Forks:
    """Starts jobs of one module as forks.

    Args:
        say: prints a line.
        module: whose function `run(words)` a job calls, and which a new interpreter would run.
        imported: modules that are imported once for all jobs.
    """

    def __init__(
        self,
        say: Callable[[str], None],
        module: str,
        imported: Sequence[str],
    ) -> None:
        self.module = module
        self.imported = tuple(imported)
        self._say = say
        self._server: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._environment: dict[str, str] = {}
        self._began = 0.0
        self._is_ready = False
        self._starts = 0
        self._given_up = sys.platform != "linux"
        self._groups: set[int] = set()

    def takes(self, command: Sequence[str], environment: Mapping[str, str]) -> bool:
        """Tell whether a job can be a fork: it runs our module, with the server's environment."""
        start = [*interpreter(), self.module]
        if self._given_up or list(command[: len(start)]) != start:
            return False
        return self._server is None or self._environment == _fixed(environment)

    def ready(self, environment: Mapping[str, str]) -> bool:
        """Tell whether a job can be started now; the first call begins the imports.

        Also true once imports have failed: jobs are new interpreters then.
        """
        if self._given_up or self._is_ready:
            return True
        if self._server is None:
            self._begin(environment)
            return self._given_up
        assert self._channel is not None
        if select.select([self._channel], [], [], 0)[0]:
            self._greeted(self._channel)
        elif time.monotonic() - self._began > PATIENCE_S:
            self._give_up(f"imports took more than {PATIENCE_S:.0f} s")
        return self._given_up or self._is_ready

    def start(
        self, command: Sequence[str], log: BinaryIO, environment: Mapping[str, str]
    ) -> Forked | None:
        """Return a fork that runs `command`; None: it has to be a new interpreter.

        Args:
            command: one that `takes` took, with its environment.
            log: both of its outputs.
            environment: all of it.
        """
        words = list(command[len(interpreter()) + 1 :])
        late = {name: environment[name] for name in LATE if name in environment}
        # ASCII alone: what a path has that is no text is escaped, and comes back as it was.
        request = json.dumps({"words": words, "variables": late}).encode()
        if self._channel is None or len(request) > LONGEST:
            return None
        own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with own:
            own.settimeout(ANSWER_S)
            try:
                with other:
                    socket.send_fds(self._channel, [request], [log.fileno(), other.fileno()])
                pid = int(own.recv(32))
                own.send(b"+")  # a fork that has not received this does nothing
            except (OSError, ValueError):
                self._lost()
                return None
        self._groups.add(pid)
        return Forked(pid)

    def collect(self) -> None:
        """Reap orphaned processes of jobs that this process has adopted."""
        for group in list(self._groups):
            try:
                # Not the jobs themselves: `Forked` needs their exit status.
                while (found := os.waitid(os.P_PGID, group, _LOOK)) is not None:
                    if found.si_pid == group:
                        break
                    os.waitpid(found.si_pid, 0)
            except ChildProcessError:
                self._groups.discard(group)

    def close(self) -> None:
        """End the server; running jobs go on."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._server is not None:
            self._server.terminate()
            self._server.wait()
            self._server = None
            take_orphans_in(False)
        self._is_ready = False

    def _begin(self, environment: Mapping[str, str]) -> None:
        if not take_orphans_in(True):
            self._given_up = True
            return
        own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._environment = _fixed(environment)
        command = [*interpreter(), "metakd.sweeps.server", str(other.fileno()), str(os.getpid())]
        try:
            with other:
                self._server = subprocess.Popen(
                    [*command, self.module, *self.imported],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=self._environment,
                    pass_fds=[other.fileno()],
                    process_group=0,
                )
        except OSError as error:
            own.close()
            self._give_up(str(error.strerror or error))
            return
        self._channel, self._began, self._is_ready = own, time.monotonic(), False
        self._starts += 1

    def _greeted(self, channel: socket.socket) -> None:
        """Read the server's first message, or notice its end."""
        try:
            content = channel.recv(LONGEST)
        except OSError:
            content = b""
        obstacle = json.loads(content)["obstacle"] if content else self._end()
        if obstacle is None:
            self._is_ready = True
        else:
            self._give_up(obstacle)

    def _lost(self) -> None:
        """Go on after the server has ended, or does not answer."""
        how = self._end()
        self.close()
        if self._starts > RESTARTS:
            self._give_up(how)
        else:
            self._say(f"the process that jobs are forked from ended ({how}); starting another one")

    def _end(self) -> str:
        """Return how the server has ended."""
        assert self._server is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            return ended_how(self._server.wait(timeout=1.0))
        return "does not answer"

    def _give_up(self, reason: str) -> None:
        self.close()
        self._given_up = True
        self._say(
            f"each job starts a new interpreter: jobs cannot be forks of one process ({reason})"
        )


_LOOK = os.WEXITED | os.WNOHANG | os.WNOWAIT if hasattr(os, "WNOWAIT") else 0


def _fixed(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what libraries read when they are imported."""
    return {name: value for name, value in environment.items() if name not in LATE}
