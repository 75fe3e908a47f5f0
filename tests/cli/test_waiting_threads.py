"""Threads that wait for each other sleep soon: OpenMP is told before torch is loaded."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from metakd.cli.waiting_threads import let_waiting_threads_sleep
from metakd.runs.provenance import collect

WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


@pytest.fixture(autouse=True)
def _unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in WAITING:
        monkeypatch.setenv(name, "")  # what the code sets is undone, too
        monkeypatch.delenv(name)


def test_set_before_torch_and_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    let_waiting_threads_sleep()
    assert collect(["x"])["environment"]["GOMP_SPINCOUNT"] == "1000"


@pytest.mark.parametrize(
    ("name", "value"), [("GOMP_SPINCOUNT", "7"), ("OMP_WAIT_POLICY", "active")]
)
def test_the_users_word_counts(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setenv(name, value)
    let_waiting_threads_sleep()
    recorded = collect(["x"])["environment"]
    assert {n: recorded[n] for n in WAITING if n in recorded} == {name: value}


def test_too_late_once_torch_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", sys)
    let_waiting_threads_sleep()
    assert "GOMP_SPINCOUNT" not in os.environ


def test_the_command_line_tells_openmp_in_time() -> None:
    """What OpenMP read when torch loaded it after a command began; it says so itself."""
    code = (
        "import sys; from metakd.cli import main; main(['--version']); "
        "assert 'torch' not in sys.modules; import torch; "
        "print(any('gomp' in line for line in open('/proc/self/maps')))"
    )
    if not sys.platform.startswith("linux"):
        pytest.skip("torch brings another OpenMP there")
    told = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_DISPLAY_ENV": "verbose"},
    )
    if "False" in told.stdout:
        pytest.skip("this torch brings another OpenMP")
    assert "GOMP_SPINCOUNT = '1000'" in told.stderr
