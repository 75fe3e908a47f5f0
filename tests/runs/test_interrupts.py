"""Real signals, sent to real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from metakd.runs.interrupts import Interrupted, Stop, interrupts

CHILD = """
import sys, time
from metakd.runs.interrupts import Interrupted, Stop, interrupts
try:
    with interrupts():
        try:
            print("ready", flush=True)
            time.sleep(30)
        except Interrupted as why:
            print("saving", why, flush=True)
            for _ in range({saving}):
                time.sleep(0.1)
            print("saved", flush=True)
            raise
except KeyboardInterrupt:
    sys.exit(130)
"""


def child(saving: int) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD.format(saving=saving)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_lets_the_run_save(number: signal.Signals) -> None:
    process = child(saving=2)
    process.send_signal(number)
    out, _ = process.communicate(timeout=20)
    assert out == f"saving {number.name}\nsaved\n"
    assert process.returncode == 130


def test_the_second_signal_ends_at_once() -> None:
    process = child(saving=300)
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("saving")
    time.sleep(0.3)
    start = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 130
    assert time.monotonic() - start < 2
    assert process.stdout.read() == ""


def test_one_press_that_arrives_twice_is_one() -> None:
    """A shell or `timeout` signals a process and then its whole group."""
    process = child(saving=2)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=20)
    assert out.endswith("saved\n")
    assert process.returncode == 130


def test_the_handlers_from_before_are_put_back() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with interrupts() as stop, pytest.raises(Interrupted):
        os.kill(os.getpid(), signal.SIGINT)
    assert stop.signal == signal.SIGINT
    with pytest.raises(Interrupted):
        stop.check()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_loop_can_look_when_the_exception_was_lost() -> None:
    with interrupts() as stop:
        stop.check()
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(Interrupted):
            stop.check()


def test_in_another_thread_it_does_nothing() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def work() -> None:
        with interrupts() as stop:
            seen.append((stop.signal, signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(None, before)]


def test_a_signal_waits_for_what_must_not_be_torn() -> None:
    done = []

    def work(stop: Stop) -> None:
        with stop.held():
            with stop.held():
                os.kill(os.getpid(), signal.SIGTERM)
                done.append("inner")
            done.append("outer")
        done.append("after")

    with interrupts() as stop, pytest.raises(Interrupted):
        work(stop)
    assert done == ["inner", "outer"]


def test_a_second_signal_does_not_wait() -> None:
    code = (
        "import os, signal, time\n"
        "from metakd.runs.interrupts import interrupts\n"
        "with interrupts() as stop, stop.held():\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(0.3)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    print('went on')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (130, "")
