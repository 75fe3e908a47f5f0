"""`metakd train -m`: the combinations, their processes, their folders and the exit status."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from metakd.cli import sweep as module
from metakd.cli.sweep import combinations


def test_combinations_are_those_of_the_basic_sweeper() -> None:
    jobs, own = combinations(
        ["seed=0,1", "task.shots=range(1,6,4)", "evaluate.shots=[1,5]", "hydra.sweep.dir=a,b=c"]
    )
    assert jobs == [
        ["seed=0", "task.shots=1", "evaluate.shots=[1,5]"],
        ["seed=0", "task.shots=5", "evaluate.shots=[1,5]"],
        ["seed=1", "task.shots=1", "evaluate.shots=[1,5]"],
        ["seed=1", "task.shots=5", "evaluate.shots=[1,5]"],
    ]
    assert own == ["hydra.sweep.dir='a,b=c'"]


def test_paths_are_swept_if_each_is_quoted() -> None:
    jobs, _ = combinations(["teacher.checkpoint='a','b'", "data_root=/x, y"])
    assert jobs == [
        ["teacher.checkpoint='a'", "data_root='/x, y'"],
        ["teacher.checkpoint='b'", "data_root='/x, y'"],
    ]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Commands of the jobs; those with seed=1 fail."""
    commands: list[list[str]] = []

    class Process:
        def __init__(self, command: list[str]) -> None:
            commands.append(command)

        def wait(self) -> int:
            return 1 if "seed=1" in commands[-1] else 0

    monkeypatch.setattr(module.subprocess, "Popen", Process)
    return commands


def test_jobs_run_in_numbered_folders(metakd, started, tmp_path: Path) -> None:
    answer = metakd("train", "-m", "seed=0,2", f"hydra.sweep.dir={tmp_path}/s w")
    assert answer.status == 0
    assert [c[-1] for c in started] == [f"hydra.run.dir={tmp_path}/s w/{n}" for n in (0, 1)]
    assert started[0][:4] == [sys.executable, "-m", "metakd", "train"]
    assert "2 of 2 jobs done, 0 failed" in answer.out


def test_a_failed_job_is_status_1_and_stops_no_other(metakd, started, tmp_path: Path) -> None:
    answer = metakd("train", "-m", "seed=0,1,2", f"hydra.sweep.dir={tmp_path}")
    assert answer.status == 1
    assert len(started) == 3
    assert "2 of 3 jobs done, 1 failed" in answer.out


def test_nothing_starts_if_one_combination_is_impossible(metakd, started, tmp_path: Path) -> None:
    answer = metakd("train", "-m", "task.ways=5,5000", f"hydra.sweep.dir={tmp_path}/s")
    assert answer.status == 2
    assert "task.ways=5000" in answer.err
    assert answer.err.count("\n") == 1
    assert started == []
    assert not (tmp_path / "s").exists()


def test_untyped_folder_is_never_shared(
    metakd, started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(3):
        assert metakd("train", "-m", "seed=0,2").status == 0
    assert len({Path(c[-1]).parent for c in started}) == 3


def test_settings_hold_whatever_the_choices_are(metakd, started, tmp_path: Path) -> None:
    answer = metakd(
        "train",
        "-m",
        "algorithm=maml,protonet",
        "algorithm.inner_steps=1",
        "distill=none,kd",
        "distill.temperature=2",
        f"hydra.sweep.dir={tmp_path}",
    )
    assert answer.status == 0
    assert len(started) == 4


def test_hydra_s_own_launcher_and_sweeper(metakd, pipeline, tmp_path: Path) -> None:
    answer = metakd(
        "train", "-m", "hydra/launcher=basic", "seed=0,1", f"hydra.sweep.dir={tmp_path}/s"
    )
    assert answer.status == 0, answer.err
    assert [c.config.seed for c in pipeline.calls] == [0, 1]
    assert [c.run_dir for c in pipeline.calls] == [tmp_path / "s" / n for n in "01"]
    # The program's own log and figures are the truth; Hydra leaves only its notes there.


@pytest.mark.parametrize("key", ["hydra.run.dir", "hydra.sweep.subdir"])
def test_folders_that_jobs_cannot_have(metakd, started, key: str) -> None:
    answer = metakd("train", "-m", "seed=0,1", f"{key}=x")
    assert answer.status == 2
    assert "hydra.sweep.dir" in answer.err
