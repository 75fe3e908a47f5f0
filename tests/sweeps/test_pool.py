"""Real processes: how many at a time, with which share of the machine, and how they end."""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from metakd.runs.process import ended_how
from metakd.sweeps import pool as module
from metakd.sweeps.pool import Pool, gpus, shares

from .conftest import until


def python(code: str) -> Sequence[str]:
    return [sys.executable, "-S", "-c", code]


def test_output_status_and_variables(tmp_path: Path) -> None:
    pool = Pool(2)
    assert pool.free() == 0
    said = "import os; print(os.environ['SHARE'], flush=True); "
    pool.start(5, 0, python(said + "raise SystemExit(3)"), tmp_path / "l", {"SHARE": "one"})
    assert pool.free() == 1
    pool.start(6, 1, python(said + "os.abort()"), tmp_path / "m", {"SHARE": "two"})
    assert pool.free() is None
    assert set(pool.running()) == {5, 6}
    ended = []
    until(lambda: ended.extend(pool.ended()) or len(ended) == 2)
    assert {e.number: e.status for e in ended} == {5: 3, 6: -6}
    assert all(0 < e.seconds < 20 for e in ended)
    assert (tmp_path / "l").read_text() == "one\n"
    assert (tmp_path / "m").read_text().startswith("two\n")
    assert pool.free() == 0


def test_stop_waits_until_they_have_saved(tmp_path: Path) -> None:
    pool = Pool(1)
    code = (
        "import signal, sys, time\n"
        "def stop(*_):\n"
        "    time.sleep(0.3)\n"
        "    print('saved', flush=True)\n"
        "    sys.exit(130)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    pool.start(0, 0, python(code), tmp_path / "l", {})
    until(lambda: (tmp_path / "l").read_text() == "ready\n")
    began = time.monotonic()
    assert [e.status for e in pool.stop()] == [130]
    assert time.monotonic() - began < 10
    assert (tmp_path / "l").read_text() == "ready\nsaved\n"
    assert pool.stop() == []


def test_each_process_has_a_group_of_its_own(tmp_path: Path) -> None:
    """Ctrl-C on a terminal goes to a whole group; the sweep passes it on, once."""
    pool = Pool(1)
    pid = pool.start(0, 0, python("import time; time.sleep(60)"), tmp_path / "l", {})
    assert os.getpgid(pid) == pid != os.getpgid(0)
    pool.stop()


def test_what_cannot_be_started(tmp_path: Path) -> None:
    pool = Pool(1)
    with pytest.raises(OSError, match="nowhere"):
        pool.start(0, 0, [str(tmp_path / "nowhere")], tmp_path / "l", {})
    assert pool.running() == {}


def test_shares_of_cores_and_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert shares(1, []) == [{}]  # as if it was typed alone
    assert [s["OMP_NUM_THREADS"] for s in shares(3, [])] == ["2"] * 3
    assert shares(20, [])[0]["OMP_NUM_THREADS"] == "1"
    assert [s["CUDA_VISIBLE_DEVICES"] for s in shares(3, ["4", "7"])] == ["4", "7", "4"]
    monkeypatch.setenv("OMP_NUM_THREADS", "5")  # the user's word
    assert shares(2, []) == [{}, {}]


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("0,2", ["0", "2"]),
        ("GPU-a, GPU-b", ["GPU-a", "GPU-b"]),
        ("", []),
        ("-1", []),
        ("1,-1,2", ["1"]),
    ],
)
def test_gpus_that_the_user_has_chosen(
    monkeypatch: pytest.MonkeyPatch, typed: str, found: list[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", typed)
    assert gpus() == found


def test_gpus_that_the_driver_lists(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpus() == []
    tool = tmp_path / "nvidia-smi"
    lines = r"GPU 0: NVIDIA X (UUID: GPU-1)\n  MIG 1g Device 0: (UUID: MIG-2)\nGPU 1: NVIDIA X"
    tool.write_text(f"#!/bin/sh\nprintf '{lines}\\n'\n")
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    assert gpus() == ["0", "1"]
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert gpus() == []


def test_the_end_in_words() -> None:
    assert ended_how(3) == "ended with status 3"
    assert ended_how(-15) == "killed by SIGTERM"
    assert ended_how(-9).startswith("killed by SIGKILL (")
    assert ended_how(-250) == "killed by signal 250"
