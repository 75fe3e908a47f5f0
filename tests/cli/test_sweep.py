"""`metakd train -m`: the combinations, their processes, their folders and the exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from metakd.cli.sweep import combinations
from metakd.sweeps import driver
from metakd.sweeps.state import Job, Sweep


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
    """Commands of the jobs; processes that do nothing run instead, those with seed=1 fail."""
    commands: list[list[str]] = []
    real = driver.command_of

    def command_of(sweep: Sweep, job: Job, again: bool, extras: Sequence[str]) -> list[str]:
        commands.append(real(sweep, job, again, extras))
        return [sys.executable, "-S", "-c", f"raise SystemExit({int('seed=1' in job.overrides)})"]

    monkeypatch.setattr(driver, "command_of", command_of)
    return commands


def folder_of(command: list[str]) -> Path:
    return Path(command[-1].removeprefix("hydra.run.dir="))


def test_jobs_run_in_numbered_folders(metakd, started, tmp_path: Path) -> None:
    answer = metakd("train", "-m", "seed=0,2", f"hydra.sweep.dir={tmp_path}/s w")
    assert answer.status == 0
    assert [folder_of(c) for c in started] == [tmp_path / "s w" / n for n in "01"]
    words = started[0][started[0].index("-m") :]
    assert words[:4] == ["-m", "metakd.cli.job", str(os.getpid()), os.getcwd()]
    assert words[4:] == ["train", "seed=0", f"hydra.run.dir={tmp_path}/s w/0"]
    assert "2 of 2 jobs done, 0 failed" in answer.out


def test_a_failed_job_is_status_1_and_stops_no_other(metakd, started, tmp_path: Path) -> None:
    answer = metakd("train", "-m", "seed=0,1,2", f"hydra.sweep.dir={tmp_path}")
    assert answer.status == 1
    assert len(started) == 3
    assert "2 of 3 jobs done, 1 failed" in answer.out
    assert "ended with status 1" in answer.out
    assert f"resume={tmp_path}" in answer.err


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
    assert len({folder_of(c).parent for c in started}) == 3


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


def test_settings_of_the_sweep(metakd, started, pipeline, tmp_path: Path) -> None:
    answer = metakd("train", "-m", "seed=0,2", "sweep.jobs=2", f"hydra.sweep.dir={tmp_path}/s")
    assert answer.status == 0
    assert not any("sweep.jobs" in word for command in started for word in command)
    for words in (
        ["sweep.jobs=2"],
        ["-m", "sweep.jobs=many", "seed=0,1"],
        ["-m", "sweep.job=2", "seed=0,1"],
        ["-m", "sweep.jobs=2", "seed=0,1", "hydra/launcher=basic"],
        ["-m", "seed=0,1", "resume=outputs"],
    ):
        answer = metakd("train", *words)
        assert answer.status == 2, words
        assert answer.err.count("\n") == 1
    assert len(started) == 2
    assert pipeline.calls == []


def test_typed_again_with_other_combinations(metakd, started, tmp_path: Path) -> None:
    place = f"hydra.sweep.dir={tmp_path}/s"
    assert metakd("train", "-m", "seed=0,2", place).status == 0
    before = (tmp_path / "s" / "sweep.json").read_bytes()
    answer = metakd("train", "-m", "seed=2,3", place)
    assert answer.status == 2
    assert "new: seed=3; no longer there: job 0 (seed=0)" in answer.err
    assert (tmp_path / "s" / "sweep.json").read_bytes() == before
    answer = metakd("train", "-m", "seed=2,3", place, "resume_changed=true")
    assert answer.status == 0
    assert folder_of(started[-1]) == tmp_path / "s" / "2"
    assert not any("resume_changed" in word for word in started[-1])


def test_typed_again_elsewhere(metakd, started, tmp_path: Path, monkeypatch) -> None:
    """A relative path means another folder there; `resume=` takes the one of the first time."""
    for place in ("a", "b"):
        (tmp_path / place / "photos").mkdir(parents=True)
    words = ["dataset=image_folder", "dataset.folder=photos", "seed=0,2"]
    words.append(f"hydra.sweep.dir={tmp_path}/s")
    monkeypatch.chdir(tmp_path / "a")
    assert metakd("train", "-m", *words).status == 0
    monkeypatch.chdir(tmp_path / "b")
    answer = metakd("train", "-m", *words)
    assert answer.status == 2
    assert f"was typed in '{tmp_path}/a', where this is '{tmp_path}/a/photos'" in answer.err
    assert len(started) == 2
    (tmp_path / "a").rename(tmp_path / "moved")  # nothing is left there
    assert metakd("train", "-m", *words).status == 0


def test_a_folder_that_holds_something_else(metakd, started, tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "run.json").write_text("{}")
    for folder in (tmp_path, tmp_path / "0"):
        answer = metakd("train", "-m", "seed=0,2", f"hydra.sweep.dir={folder}")
        assert answer.status == 2
        assert "holds runs" in answer.err
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["0", "run.json"]
    assert started == []


def test_resume_of_a_sweep_s_folder(metakd, started, tmp_path: Path) -> None:
    folder = tmp_path / "s"
    assert metakd("train", "-m", "seed=0,1", f"hydra.sweep.dir={folder}").status == 1
    answer = metakd("train", f"resume={folder}", "tracker=none", "sweep.jobs=2")
    assert answer.status == 1  # the stand-ins keep no run: both are started again
    assert [c[c.index("train") :] for c in started[2:]] == [
        ["train", f"seed={n}", "tracker=none", f"hydra.run.dir={folder}/{n}"] for n in (0, 1)
    ]
    answer = metakd("train", f"resume={folder}", "meta_train.iterations=7")
    assert answer.status == 2
    assert "meta_train.iterations" in answer.err
    assert "resume_changed=true" in answer.err
    assert len(started) == 4


def test_settings_that_come_too_late_for_a_finished_multirun(
    metakd, started, made_up, tmp_path: Path
) -> None:
    folder = tmp_path / "s"
    assert metakd("train", "-m", "seed=0,2", f"hydra.sweep.dir={folder}").status == 0
    for number in "01":
        made_up(folder / number)
    late = ["train", f"resume={folder}", "meta_train.iterations=7"]
    answer = metakd(*late)
    assert answer.status == 2
    assert "meta_train.iterations: 400 -> 7" in answer.err
    answer = metakd(*late, "resume_changed=true")
    assert answer.status == 0
    assert "all jobs are finished already: meta_train.iterations=7 changed nothing" in answer.out
    assert len(started) == 2


def test_plugins_are_never_taken_from_sweep_json(metakd, started, tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, [Job(0, ["seed=0", "+plugins=[theirs]"])], 1, str(tmp_path))
    sweep.save()
    answer = metakd("train", f"resume={tmp_path}")
    assert answer.status == 2
    assert "plugins" in answer.err
    for word in ("hydra.mode=MULTIRUN", "resume=elsewhere", "hydra.run.dir=elsewhere"):
        sweep.jobs[0].overrides = ["seed=0", word]
        sweep.save()
        answer = metakd("train", f"resume={tmp_path}")
        assert answer.status == 2
        assert "must not have" in answer.err
    assert started == []
