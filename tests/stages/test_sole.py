"""One process at a time makes an entry; a killed one leaves nothing that blocks the next."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from metakd.stages.sole import sole_maker

HOLD = """
import sys, time
from pathlib import Path
from metakd.stages.sole import sole_maker
with sole_maker(Path(sys.argv[1]), "k", lambda: print("waiting", flush=True)):
    print("held", flush=True)
    time.sleep(60)
"""


def test_one_after_the_other(tmp_path: Path) -> None:
    inside: list[int] = []
    most: list[int] = []
    waited: list[int] = []

    def work(number: int) -> None:
        with sole_maker(tmp_path / "c", "k", lambda: waited.append(number)):
            inside.append(number)
            most.append(len(inside))
            time.sleep(0.1)
            inside.remove(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1]
    assert len(waited) == 2  # each said so once


def test_other_entries_are_not_waited_for(tmp_path: Path) -> None:
    def waiting() -> None:
        pytest.fail("waited for another entry")

    with sole_maker(tmp_path, "k", waiting), sole_maker(tmp_path, "l", waiting):
        pass


def test_a_killed_holder_and_an_interrupted_waiter(tmp_path: Path) -> None:
    def start() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        return process

    def says(process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        return process.stdout.readline().strip()

    holder = start()
    assert says(holder) == "held"
    first, second = start(), start()
    assert {says(first), says(second)} == {"waiting"}
    first.send_signal(signal.SIGINT)
    assert first.wait(10) != 0
    assert second.poll() is None
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait(10)
    began = time.monotonic()
    assert says(second) == "held"
    assert time.monotonic() - began < 2
    second.kill()
    second.wait(10)


def test_no_lock_to_be_had(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    done = []
    with sole_maker(tmp_path / "file" / "teachers", "k", lambda: None):
        done.append(1)
    assert done
    assert "cannot be locked" in caplog.text
