"""Real runs: a sweep that was killed, and one of its jobs with it, is completed once."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from metakd import train
from metakd.runs.equality import compare, figures_of
from metakd.runs.folder import open_run

from .conftest import statuses, until

ROOT = Path(__file__).parents[2]
TINY = (
    "dataset.images_per_class=4",
    "dataset.image_size=16",
    "task.queries=3",
    "task.train_queries=3",
    "task.meta_batch=2",
    "distill=kd",
    "student_alone=false",
    "pretrain.epochs=1",
    "pretrain.lr=0.0123",  # a teacher that nobody else has put into the cache
    "warmstart.epochs=0",
    "meta_train.iterations=500",
    "meta_train.validate_every=250",
    "meta_train.validate_tasks=4",
    "teacher=conv4_small",
    "teacher.width=4",
    "student.width=4",
    "evaluate.tasks=4",
    "evaluate.shots=[]",
    "evaluate.transductive=false",
    "tracker=none",
    "deterministic=true",
    "checkpoint_minutes=null",
    "checkpoint_steps=20",
)


START = """
import sys
from metakd.cli import main
from metakd.sweeps.driver import Driver

module, imported = Driver.copied
Driver.copied = (module, (*imported, "quick_runs"))
sys.exit(main(["train", *sys.argv[1:]]))
"""

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def metakd(quick_runs: Path) -> Start:
    """Start `metakd train` in a process of its own; its jobs draw no figures."""
    roots = [str(quick_runs), str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(root for root in roots if root)}

    def start(*words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", START, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            env=environment,
        )

    return start


def test_nothing_here_needs_torch() -> None:
    names = "metakd.sweeps.run, metakd.cli.job, metakd.sweeps.server, metakd.cli.sweep"
    code = f"import sys, {names}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def stage(folder: Path) -> str | None:
    with contextlib.suppress(OSError, ValueError):
        found: str | None = json.loads((folder / "run.json").read_text())["stage"]
        return found
    return None


@pytest.mark.slow
def test_a_job_is_the_run_that_it_would_be_alone(
    metakd: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though its process has not imported anything itself: figures and weights, to the bit."""
    # The command sets it for its jobs; the run alone is started from Python, which does not.
    monkeypatch.setenv("GOMP_SPINCOUNT", "1000")
    words = [*TINY, "meta_train.iterations=40", "meta_train.validate_every=20"]
    words += ["warmstart.epochs=1", "student_alone=true", "student_alone_cache=false"]
    words += ["distill=embedding", "pretrain.lr=0.012"]
    sweep = metakd("-m", *words, f"hydra.sweep.dir={tmp_path / 's'}")
    train(*words, f"hydra.run.dir={tmp_path / 'alone'}")
    torch.set_deterministic_debug_mode("default")
    said, _ = sweep.communicate(timeout=120)
    assert sweep.returncode == 0, said
    assert "starts a new interpreter" not in said
    job, run = open_run(tmp_path / "s" / "0"), open_run(tmp_path / "alone")
    files = compare(figures_of(job), figures_of(run))
    assert {f.file: f.differences for f in files} == {f.file: () for f in files}
    assert sum(f.figures for f in files) > 100
    infos = [dict(job.read_run().content), dict(run.read_run().content)]
    for info in infos:
        for passing in ("pid", "process_start", "start", "end", "command"):
            del info[passing]
    assert infos[0] == infos[1]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of a parent's end")
def test_killed_and_completed(metakd: Start, tmp_path: Path) -> None:
    folder = tmp_path / "s w=1"

    words = ["-m", "distill.kd_weight=0.5,1", *TINY]
    sweep = metakd(*words, "sweep.jobs=2", f"hydra.sweep.dir={folder}")
    runs = [folder / "0", folder / "1"]
    until(lambda: sweep.poll() is not None or {stage(r) for r in runs} == {"meta_train"}, 90)
    assert sweep.poll() is None, sweep.communicate()
    jobs = json.loads((folder / "sweep.json").read_text())["jobs"]
    os.kill(jobs[0]["pid"], signal.SIGKILL)
    until(lambda: statuses(folder)[0] == "failed")
    sweep.kill()
    sweep.wait()
    # The kernel tells the other job, which saves.
    until(lambda: json.loads((runs[1] / "run.json").read_text())["status"] == "interrupted")
    assert not (runs[0] / "results.json").exists()

    again = metakd(f"resume={folder}", "checkpoint_steps=500")
    said, _ = again.communicate(timeout=120)
    assert again.returncode == 0, said
    assert "2 of 2 jobs done, 0 failed" in said
    assert sorted(p.name for p in folder.iterdir() if p.is_dir()) == ["0", "1"]
    trained = []
    for run in map(open_run, runs):
        info = run.read_run()
        assert info.status == "finished"
        assert len(info.resumed or ()) == 1
        steps = [m["step"] for m in run.read_metrics() if m["stage"] == "meta_train"]
        assert steps == sorted(set(steps))
        assert steps[-1] == 499
        trained.append(any(m["stage"] == "pretrain" for m in run.read_metrics()))
    assert sorted(trained) == [False, True]  # one of them, for both
    log = (folder / f"{trained.index(False)}.log").read_text()
    assert "teacher: taken from the cache" in log
