"""Jobs as copies of a process that has imported: each a process as if it was started alone."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from metakd.sweeps import forks as module
from metakd.sweeps.forks import Forks, interpreter
from metakd.sweeps.pool import Ended, Pool

from .conftest import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="copies are made on Linux alone")

JOB = """
import os, random, signal, subprocess, sys, time
STATE = []
print("imported by", os.getpid(), flush=True)

def run(words):
    exec(words[0], globals())
    return 0

if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
"""


class Jobs:
    """A pool whose jobs are lines of Python."""

    def __init__(self, folder: Path, *imported: str) -> None:
        self.said: list[str] = []
        self.folder = folder
        self.forks = Forks(self.said.append, "made_up_job", imported)
        self.pool = Pool(3, self.forks)
        self.ended: dict[int, int] = {}

    def start(self, number: int, code: str, **variables: str) -> int:
        command = [*interpreter(), "made_up_job", code]
        until(lambda: self.pool.ready(command, variables))
        slot = self.pool.free()
        assert slot is not None
        return self.pool.start(number, slot, command, self.folder / f"{number}.log", variables)

    def end(self, number: int) -> int:
        until(lambda: self._see(self.pool.ended()) or number in self.ended)
        return self.ended[number]

    def _see(self, ended: list[Ended]) -> None:
        self.ended |= {one.number: one.status for one in ended}

    def log(self, number: int) -> list[str]:
        return (self.folder / f"{number}.log").read_text().splitlines()


@pytest.fixture(scope="module", autouse=True)
def job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("modules")
    (folder / "made_up_job.py").write_text(JOB)
    (folder / "busy.py").write_text(
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    paths = [str(folder), str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(path for path in paths if path))
        yield


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    found = Jobs(tmp_path)
    yield found
    found.pool.stop()
    found.pool.close()


def test_each_is_a_process_of_its_own(jobs: Jobs) -> None:
    show = "print(STATE, os.getppid(), os.getpgid(0), os.environ.get('CUDA_VISIBLE_DEVICES'), "
    show += "repr(sys.stdin.read()), random.random()); STATE.append(1)"
    first = jobs.start(0, show, CUDA_VISIBLE_DEVICES="4")
    second = jobs.start(1, show + "; print('worse', file=sys.stderr); raise SystemExit(3)")
    third = jobs.start(2, "os.abort()")
    assert [jobs.end(number) for number in range(3)] == [0, 3, -6]
    seen = [jobs.log(number) for number in range(3)]
    # Nothing was imported again, nothing is left of the other's work; status and parent are ours.
    assert seen[0][0].split()[:5] == ["[]", str(os.getpid()), str(first), "4", "''"]
    visible = str(os.environ.get("CUDA_VISIBLE_DEVICES"))
    words = next(line for line in seen[1] if line != "worse").split()
    assert words[:5] == ["[]", str(os.getpid()), str(second), visible, "''"]
    assert "worse" in seen[1]
    assert words[-1] != seen[0][0].split()[-1]
    assert not any("imported" in line for lines in seen for line in lines)
    assert third not in (first, second)
    assert jobs.said == []


def test_signals_reach_it(jobs: Jobs) -> None:
    ready = "print('ready', flush=True); time.sleep(60)"
    saves = "signal.signal(15, lambda *_: (print('saved', flush=True), os._exit(130))); "
    jobs.start(0, saves + ready)
    jobs.start(1, ready)
    jobs.start(2, "signal.default_int_handler; " + ready)
    until(lambda: all(jobs.log(number) for number in range(3)))
    jobs.pool.end(0)
    assert jobs.end(0) == 130
    assert jobs.log(0) == ["ready", "saved"]
    os.kill(jobs.pool._running[1].process.pid, signal.SIGKILL)
    assert jobs.end(1) == -9
    os.kill(jobs.pool._running[2].process.pid, signal.SIGINT)
    assert jobs.end(2) != 0
    assert "KeyboardInterrupt" in jobs.log(2)[-1]


def test_a_killed_server_takes_no_job_along(jobs: Jobs, tmp_path: Path) -> None:
    gate = tmp_path / "open"
    wait = f"print('in', flush=True)\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.02)"
    jobs.start(0, wait)
    until(lambda: jobs.log(0))
    assert jobs.forks._server is not None
    jobs.forks._server.kill()
    jobs.forks._server.wait()
    # It is noticed by the next one, which starts all the same.
    jobs.start(1, "print('on its own')")
    assert jobs.end(1) == 0
    assert jobs.said == [
        "the process that jobs are forked from ended (killed by SIGKILL (too little memory, or "
        "by a user)); starting another one"
    ]
    jobs.start(2, "print('a copy')")
    assert jobs.end(2) == 0
    assert jobs.log(2) == ["a copy"]
    gate.touch()
    assert jobs.end(0) == 0


def test_one_that_keeps_dying_is_given_up(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RESTARTS", 0)
    jobs.start(0, "pass")
    assert jobs.end(0) == 0
    assert jobs.forks._server is not None
    jobs.forks._server.kill()
    for number in (1, 2):
        jobs.start(number, "print('done')")
        assert jobs.end(number) == 0
        assert jobs.log(number)[-1] == "done"
        assert jobs.log(number)[0].startswith("imported")
    assert len(jobs.said) == 1
    assert "each job starts a new interpreter" in jobs.said[0]


@pytest.mark.parametrize(
    ("imported", "reason"),
    [("no_such_module", "ended with status 1"), ("busy", "1 thread(s) run in it")],
)
def test_what_cannot_be_copied(tmp_path: Path, imported: str, reason: str) -> None:
    jobs = Jobs(tmp_path, imported)
    jobs.start(0, "print('done'); raise SystemExit(4)")
    assert jobs.end(0) == 4
    assert jobs.log(0)[0].startswith("imported by")
    assert jobs.log(0)[-1] == "done"
    assert len(jobs.said) == 1
    assert reason in jobs.said[0]
    jobs.pool.close()


def test_other_variables_need_a_new_interpreter(jobs: Jobs) -> None:
    """Libraries read some when they are imported, such as the number of threads."""
    jobs.start(0, "print(os.environ['OMP_NUM_THREADS'])", OMP_NUM_THREADS="2")
    jobs.start(1, "print(os.environ['OMP_NUM_THREADS'])", OMP_NUM_THREADS="3")
    assert [jobs.end(0), jobs.end(1)] == [0, 0]
    assert jobs.log(0) == ["2"]
    assert jobs.log(1)[0].startswith("imported by")
    assert jobs.log(1)[1:] == ["3"]
    assert not jobs.forks.takes([sys.executable, "-m", "other"], os.environ)


def test_what_a_job_leaves_behind_is_collected(jobs: Jobs) -> None:
    pid = jobs.start(0, "subprocess.Popen(['sleep', '0.2'])")
    assert jobs.end(0) == 0
    until(lambda: jobs.pool.ended() or pid not in jobs.forks._groups)
    with pytest.raises(ChildProcessError):
        os.waitpid(-pid, os.WNOHANG)


def test_a_copy_that_nobody_has_heard_of_does_nothing(jobs: Jobs, tmp_path: Path) -> None:
    jobs.start(0, "pass")
    assert jobs.end(0) == 0
    assert jobs.forks._channel is not None
    own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with (tmp_path / "9.log").open("wb") as log, other:
        request = b'{"words": ["print(1)"], "variables": {}}'
        socket.send_fds(jobs.forks._channel, [request], [log.fileno(), other.fileno()])
    pid = int(own.recv(32))
    time.sleep(0.05)
    assert os.waitpid(pid, os.WNOHANG) == (0, 0)  # it waits
    own.close()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 130
    assert jobs.log(9) == []


def test_elsewhere_jobs_are_new_interpreters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.sys, "platform", "darwin")
    jobs = Jobs(tmp_path)
    monkeypatch.undo()
    jobs.start(0, "pass")
    assert jobs.end(0) == 0
    assert jobs.log(0)[0].startswith("imported by")
    assert jobs.forks._server is None
