"""Jobs that are real processes but do next to nothing, in place of `metakd train`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

STAND_IN = '''
"""What the sweep sees of a run: its folder, its lock, its status; saves when asked to end."""
import json, os, signal, sys, time
from pathlib import Path
from filelock import FileLock

parent, folder, doing = sys.argv[1:4]
if "tied" in doing:
    from metakd.sweeps.tie import tie_to
    tie_to(int(parent))
folder = Path(folder)
again = (folder / "run.json").exists()
(folder / "checkpoints").mkdir(parents=True, exist_ok=True)
FileLock(folder / ".lock").acquire(timeout=0)

def note(status, **more):
    content = {"schema": 1, "status": status, "stage": "meta_train", "stage_steps": 10, **more}
    (folder / "run.json").write_text(json.dumps(content))

def stop(number, frame):
    note("interrupted")
    with open(folder.parent / "story.txt", "a") as file:
        file.write(f"{folder.name} saved\\n")
    sys.exit(130)

signal.signal(signal.SIGTERM, stop)
note("running")
(folder / "checkpoints" / "last.pt").touch()
with open(folder.parent / "story.txt", "a") as file:
    file.write(f"{folder.name} {'again' if again else 'new'} {os.environ.get('OMP_NUM_THREADS')}"
               f" {os.environ.get('CUDA_VISIBLE_DEVICES')} {time.time()}\\n")
gate = folder.parent / "open"
if "fail" in doing and not again:
    note("failed", error="RuntimeError: it broke")
    print("metakd: it broke", file=sys.stderr)
    sys.exit(1)
if "die" in doing and not again:
    os.kill(os.getpid(), signal.SIGKILL)
if "stay" in doing:
    while not gate.exists():
        time.sleep(0.02)
time.sleep(0.2 if "slow" in doing else 0.0)
(folder / "results.json").write_text(json.dumps(
    {"schema": 1, "student": {"fewshot": {"accuracy": 0.5, "ci95": 0.01}}}))
note("finished")
with open(folder.parent / "story.txt", "a") as file:
    file.write(f"{folder.name} end {time.time()}\\n")
'''

DRIVER = """
import sys
from pathlib import Path
from metakd.cli import guarded
from metakd.sweeps import driver, run

script = sys.argv[1]
copied = sys.argv[3] == "copied"
start = [*driver.interpreter(), "stand_in_job"] if copied else [sys.executable]
driver.Driver.copied = ("stand_in_job", ())
driver.command_of = lambda sweep, job, again, extras: [
    *start, script, str(driver.os.getpid()), str(sweep.run_folder(job)), job.overrides[-1]]
sys.exit(guarded(lambda: run.go_on(Path(sys.argv[2]))))
"""

MODULE = """
import runpy, sys

def run(words):
    sys.argv = words
    runpy.run_path(words[0], run_name="__main__")
    return 0
"""


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The script of a job: PARENT FOLDER WHAT_IT_DOES."""
    path = tmp_path_factory.mktemp("job") / "job.py"
    path.write_text(STAND_IN)
    (path.parent / "stand_in_job.py").write_text(MODULE)
    return path


@pytest.fixture
def driven(
    stand_in: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Callable[[Path], subprocess.Popen[str]]]:
    """Carry a sweep's folder out in a process of its own, whose jobs are stand-ins.

    They are new programs or, with the parameter `copied`, copies of a process that has imported.
    """
    how = getattr(request, "param", "new")
    if how == "copied" and sys.platform != "linux":
        pytest.skip("copies are made on Linux alone")
    roots = [str(stand_in.parent), str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(root for root in roots if root)}
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    started: list[subprocess.Popen[str]] = []

    def drive(folder: Path) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, str(script), str(stand_in), str(folder), how],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield drive
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def story(folder: Path) -> list[list[str]]:
    """Return what the stand-ins have noted, in order."""
    path = folder / "story.txt"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def until(true: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait for something that another process does."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def statuses(folder: Path) -> list[str]:
    content = json.loads((folder / "sweep.json").read_text())
    return [job["status"] for job in content["jobs"]]
