"""A sweep of stand-in processes: bounded, robust, stopped, killed, completed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from metakd.sweeps.driver import Driver, command_of, outlook
from metakd.sweeps.state import Job, Sweep

from .conftest import statuses, story, until

Drive = Callable[[Path], "subprocess.Popen[str]"]
BOTH = pytest.mark.parametrize("driven", ["new", "copied"], indirect=True)
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of a parent's end")


def sweep_of(folder: Path, *doings: str, parallel: int = 1) -> Sweep:
    """Return a sweep whose jobs' last override says what the stand-in does."""
    folder.mkdir(exist_ok=True)
    jobs = [Job(n, [f"seed={n}", f"name={doing}"]) for n, doing in enumerate(doings)]
    sweep = Sweep(folder, jobs, parallel, str(folder))
    sweep.save()
    return sweep


def carry_out(sweep: Sweep, stand_in: Path) -> int:
    def command(sweep: Sweep, job: Job, again: bool, extras: object) -> list[str]:
        folder = str(sweep.run_folder(job))
        return [sys.executable, str(stand_in), str(os.getpid()), folder, job.overrides[-1]]

    return Driver(sweep, command=command).carry_out()


def began(folder: Path) -> list[str]:
    return [f"{words[0]} {words[1]}" for words in story(folder) if words[1] in ("new", "again")]


def test_at_most_so_many_at_a_time(
    tmp_path: Path, stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    sweep = sweep_of(tmp_path, *["slow"] * 5, parallel=2)
    assert carry_out(sweep, stand_in) == 0
    events = [(float(w[-1]), 1 if w[1] == "new" else -1) for w in story(tmp_path)]
    inside = [sum(change for _, change in sorted(events)[: i + 1]) for i in range(len(events))]
    assert max(inside) == 2
    first = {words[0]: words[2:4] for words in story(tmp_path) if words[1] == "new"}
    assert len(first) == 5
    assert {share[0] for share in first.values()} == {str(max(1, os.cpu_count() // 2))}  # type: ignore[operator]
    assert {share[1] for share in first.values()} == {"3", "5"}
    assert statuses(tmp_path) == ["finished"] * 5


def test_failing_and_killed_jobs_take_no_other_along(
    tmp_path: Path, stand_in: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sweep = sweep_of(tmp_path, "fail", "die", "go", parallel=2)
    assert carry_out(sweep, stand_in) == 1
    out, err = capfd.readouterr()
    assert statuses(tmp_path) == ["failed", "failed", "finished"]
    assert sweep.jobs[0].reason == "it broke"
    assert "killed by SIGKILL" in str(sweep.jobs[1].reason)
    assert "it broke" in out
    assert "killed by SIGKILL" in out
    assert "50.0 ± 1.0 %" in out
    assert "1 of 3 jobs done, 2 failed" in out
    assert "job 2 (seed=2 name=go): started" in err
    assert f"resume={tmp_path}" in err
    # Again: the failed and the killed one, from their checkpoints, and not the finished one.
    assert carry_out(Sweep.load(tmp_path), stand_in) == 0
    assert sorted(began(tmp_path)) == ["0 again", "0 new", "1 again", "1 new", "2 new"]
    assert statuses(tmp_path) == ["finished"] * 3
    assert carry_out(Sweep.load(tmp_path), stand_in) == 0
    assert len(began(tmp_path)) == 5


def test_a_job_that_cannot_be_started(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, "go", "go")
    driver = Driver(sweep, command=lambda *given: [str(tmp_path / "nowhere")])
    assert driver.carry_out() == 1
    assert [job.reason for job in sweep.jobs] == [
        "cannot be started: No such file or directory"
    ] * 2


@BOTH
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_end_and_completed(tmp_path: Path, driven: Drive, number: signal.Signals) -> None:
    folder = sweep_of(tmp_path / "s", "go", "stay", "stay", "go", parallel=2).folder
    process = driven(folder)
    until(lambda: len(began(folder)) == 3)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does
    else:
        process.send_signal(number)
    said, _ = process.communicate(timeout=20)
    assert process.returncode == 130
    assert statuses(folder) == ["finished", "interrupted", "interrupted", "waiting"]
    assert sorted(w[0] for w in story(folder) if w[1] == "saved") == ["1", "2"]
    assert f"resume with: metakd train resume={folder}" in said
    (folder / "open").touch()
    process = driven(folder)
    said, _ = process.communicate(timeout=20)
    assert process.returncode == 0, said
    assert sorted(began(folder)) == ["0 new", "1 again", "1 new", "2 again", "2 new", "3 new"]


@BOTH
@LINUX
def test_a_killed_sweep_takes_its_jobs_along(tmp_path: Path, driven: Drive) -> None:
    folder = sweep_of(tmp_path / "s", "stay_tied", "stay_tied", parallel=2).folder
    process = driven(folder)
    until(lambda: len(began(folder)) == 2)
    process.kill()
    process.wait()
    until(lambda: sum(words[1] == "saved" for words in story(folder)) == 2)
    (folder / "open").touch()
    process = driven(folder)
    process.communicate(timeout=20)
    assert process.returncode == 0
    assert sorted(began(folder)) == ["0 again", "0 new", "1 again", "1 new"]


def test_jobs_that_a_killed_sweep_has_left_are_waited_for(tmp_path: Path, driven: Drive) -> None:
    folder = sweep_of(tmp_path / "s", "stay", "go").folder
    process = driven(folder)
    until(lambda: began(folder))
    process.kill()
    process.wait()
    again = driven(folder)
    assert again.stdout is not None
    assert "job 0 is still running" in again.stdout.readline()
    assert began(folder) == ["0 new"]
    (folder / "open").touch()
    again.communicate(timeout=20)
    assert again.returncode == 0
    assert began(folder) == ["0 new", "1 new"]
    assert statuses(folder) == ["finished", "finished"]


def test_such_a_job_is_asked_to_end_with_the_others(tmp_path: Path, driven: Drive) -> None:
    folder = sweep_of(tmp_path / "s", "stay").folder
    process = driven(folder)
    until(lambda: began(folder))
    process.kill()
    process.wait()
    again = driven(folder)
    assert again.stdout is not None
    again.stdout.readline()
    again.send_signal(signal.SIGINT)
    again.communicate(timeout=20)
    assert again.returncode == 130
    assert [words[1] for words in story(folder)][-1] == "saved"
    assert statuses(folder) == ["interrupted"]


def test_what_is_to_be_done_is_seen_in_the_folder(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, "go")
    job, folder = sweep.jobs[0], tmp_path / "0"
    job.status = "finished"  # somebody has removed it since
    assert outlook(sweep, job) == "new"
    folder.mkdir()
    (folder / "run.json").touch()  # killed while it was made
    assert outlook(sweep, job) == "new"
    assert not (folder / "run.json").exists()
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "config.yaml").touch()
    (folder / "run.json").write_text('{"schema": 1, "status": "finished"}')
    assert outlook(sweep, job) == "damaged"  # somebody has removed its results since
    (folder / "results.json").write_text('{"schema": 1, "student": {')
    assert outlook(sweep, job) == "damaged"
    (folder / "results.json").write_text('{"schema": 1, "student": {}}')
    assert outlook(sweep, job) == "finished"


@pytest.mark.parametrize(
    ("results", "why"), [(None, "results.json is missing"), ('{"schema": 1, "stu', "no JSON")]
)
def test_a_finished_job_without_usable_results_is_no_success(
    results: str | None, why: str, tmp_path: Path, stand_in: Path
) -> None:
    sweep = sweep_of(tmp_path, "go", "go")
    assert carry_out(sweep, stand_in) == 0
    file = tmp_path / "0" / "results.json"
    file.unlink()
    if results is not None:
        file.write_text(results)
    again = Sweep.load(tmp_path)
    assert carry_out(again, stand_in) == 1
    assert [job.status for job in again.jobs] == ["failed", "finished"]
    assert why in str(again.jobs[0].reason)
    assert str(again.jobs[0].reason).endswith("remove that folder, and the job is done again")
    assert began(tmp_path) == ["0 new", "1 new"]  # nothing was run again


def test_command_lines(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, "go")
    sweep.config_dir = "/conf"
    job = sweep.jobs[0]
    job.overrides = ["seed=0", "data_root=/a", "tracker=none"]
    words = command_of(sweep, job, False, ())
    end = ["--config-dir", "/conf"]
    assert words[words.index("train") + 1 :] == [
        *job.overrides,
        f"hydra.run.dir={tmp_path}/0",
        *end,
    ]
    words = command_of(sweep, job, True, ["data_root=/b", "resume_changed=true"])
    assert words[words.index("train") + 1 :] == [
        f"resume={tmp_path}/0",
        "data_root=/b",
        "tracker=none",
        "resume_changed=true",
        *end,
    ]


def test_a_full_disk_of_the_sweep_loses_no_job(
    tmp_path: Path,
    stand_in: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    sweep = sweep_of(tmp_path, "go", "go")
    save, calls = sweep.save, []

    def full() -> None:
        calls.append(1)
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        save()

    monkeypatch.setattr(sweep, "save", full)
    assert carry_out(sweep, stand_in) == 0
    assert capfd.readouterr().err.count("No space left") == 1
    assert json.loads((tmp_path / "1" / "run.json").read_text())["status"] == "finished"
