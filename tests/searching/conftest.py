"""Trials that are real processes but do next to nothing, in place of `metakd train`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from metakd.cli import main
from metakd.sweeps import driver
from metakd.sweeps.state import Job, Sweep

STAND_IN = '''
"""What a search sees of a trial: how good it is follows from its width alone."""
import ctypes, json, os, signal, sys, time
from pathlib import Path
from filelock import FileLock

folder, *words = sys.argv[1:]
if sys.platform == "linux":  # as metakd.cli.job, without its imports
    ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)
folder = Path(folder)
again = (folder / "run.json").exists()
(folder / "checkpoints").mkdir(parents=True, exist_ok=True)
FileLock(folder / ".lock").acquire(timeout=0)
settings = dict(word.partition("=")[::2] for word in words)

def note(status):
    content = {"schema": 1, "status": status, "stage": "meta_train", "stage_steps": 10}
    part = folder / "run.json.part"
    part.write_text(json.dumps(content))
    part.replace(folder / "run.json")

def tell(*words):
    with open(folder.parent / "story.txt", "a") as file:
        file.write(" ".join([folder.name, *words]) + "\\n")

def stop(number, frame):
    note("interrupted")
    tell("saved")
    os._exit(130)

signal.signal(signal.SIGTERM, stop)
note("running")
(folder / "checkpoints" / "last.pt").touch()
(folder / "words").write_text(" ".join(words))
tell("again" if again else "new")
width, name = float(settings["student.width"]), settings.get("name", "")
accuracy = width / 100
if "fail" in name and folder.name == "1" and not again:
    note("failed")
    print("metakd: it broke", file=sys.stderr)
    sys.exit(1)
with open(folder / "metrics.jsonl", "w") as file:
    for step in (9, 19):
        entry = {"stage": "meta_train", "step": step, "time": time.time()}
        file.write(json.dumps({**entry, "metrics": {"validate/accuracy": accuracy}}) + "\\n")
gate = folder.parent / "open"
while ("stay" in name and not gate.exists() and int(folder.name) >= 2
       or "linger" in name and width < 30 and int(folder.name) >= 2):
    time.sleep(0.02)
cost = {"parameters": int(width) * 10, "macs": 1e4 / width, "bytes": 4.0, "latency_ms": 0.5}
fewshot = {"accuracy": accuracy, "ci95": 0.01}
if "sine" in name:
    fewshot = {"mse": accuracy, "ci95": 0.01}
    if folder.name == "1":
        fewshot = {"diverged": 0.25, "shots": 10, "steps": 5, "diverged_from_step": 3}
results = {"schema": 1, "student": {"fewshot": fewshot, "cost": cost}}
(folder / "results.json").write_text(json.dumps(results))
note("finished")
tell("end")
'''

DRIVER = """
import sys
from metakd.cli import main
from metakd.sweeps import driver

script = sys.argv[1]

def command_of(sweep, job, again, extras):
    return [sys.executable, script, str(sweep.run_folder(job)), *job.overrides, *extras]

driver.command_of = command_of
sys.exit(main(["train", *sys.argv[2:]]))
"""


@dataclass
class Answer:
    """What a command said, on both streams, and with which status it ended."""

    status: int
    text: str


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """The stand-in's file."""
    path = tmp_path / "trial.py"
    path.write_text(STAND_IN)
    return path


@pytest.fixture
def metakd(
    script: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Answer]]:
    """Call `metakd train` in this process; its trials are stand-ins."""

    def command_of(sweep: Sweep, job: Job, again: bool, extras: Sequence[str]) -> list[str]:
        return [sys.executable, str(script), str(sweep.run_folder(job)), *job.overrides, *extras]

    monkeypatch.setattr(driver, "command_of", command_of)
    before = signal.getsignal(signal.SIGTERM)

    def call(*words: str) -> Answer:
        status = main(["train", *words])
        return Answer(status, "".join(capfd.readouterr()))

    yield call
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def begun(script: Path, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start `metakd train` in a process of its own, whose trials are stand-ins."""
    (tmp_path / "driver.py").write_text(DRIVER)
    started: list[subprocess.Popen[bytes]] = []

    def begin(*words: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(tmp_path / "driver.py"), str(script), *words]
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
