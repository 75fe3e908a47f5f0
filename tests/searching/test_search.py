"""Whole searches over stand-in processes: pruned, killed, gone on with, refused."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from metakd.searching.journal import opened
from metakd.searching.outcome import best_of, tried_of
from metakd.sweeps.state import Sweep

pytest.importorskip("optuna")

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of a parent's end")
WIDTHS = "student.width=10,20,30,40,50"


def until(true: Callable[[], object], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def story(folder: Path) -> list[str]:
    path = folder / "story.txt"
    return path.read_text().splitlines() if path.exists() else []


def jobs(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "sweep.json").read_text())["jobs"]
    return found


def states(folder: Path, *objectives: str) -> list[str]:
    study = opened(folder / "optuna.journal", objectives or ("accuracy",))
    return [t.state.name for t in study.trials]


@pytest.mark.slow
def test_searched_killed_and_gone_on_with(metakd: Any, begun: Any, tmp_path: Path) -> None:
    """Two at a time; one trial is killed, then the search; nothing is asked or done twice."""
    folder = tmp_path / "s"
    # With this seed the seventh suggestion is the first that comes a second time.
    words = [
        "-m",
        "sweep=optuna",
        "student.width=range(10,91,4)",
        "sweep.seed=3",
        "name=stay",
        "sweep.trials=6",
        "sweep.jobs=2",
    ]
    search = begun(*words, f"hydra.sweep.dir={folder}")
    until(lambda: {"2 new", "3 new"} <= set(story(folder)))
    assert states(folder) == ["COMPLETE", "COMPLETE", "RUNNING", "RUNNING"]
    before = [job["overrides"] for job in jobs(folder)]
    os.kill(jobs(folder)[2]["pid"], signal.SIGKILL)
    until(lambda: jobs(folder)[2]["status"] == "failed")
    search.kill()
    search.wait()
    if sys.platform == "linux":
        until(lambda: "3 saved" in story(folder))
    (folder / "open").touch()
    answer = metakd(f"resume={folder}", "sweep.trials=7")
    text = answer.text
    assert answer.status == 0, text
    assert "7 of 7 jobs done, 0 failed" in text
    count = Counter(line for line in story(folder) if line.endswith((" new", " end")))
    numbers = [job["number"] for job in jobs(folder)]
    assert len(numbers) == 7
    assert count == {f"{n} {what}": 1 for n in numbers for what in ("new", "end")}
    assert {"2 again", "3 again"} <= set(story(folder))
    assert [job["overrides"] for job in jobs(folder)][: len(before)] == before
    told = states(folder)
    assert [told[number] for number in numbers] == ["COMPLETE"] * 7
    assert ("suggestions repeated" in text) == (len(told) > 7)
    assert "importance for accuracy" in text or "best trials" in text
    line = next(line for line in text.splitlines() if "metakd train -m student_alone" in line)
    assert "evaluate.part" not in line
    assert line.endswith("seed=1,2,3")
    best = max(float(job["overrides"][-1].partition("=")[2]) for job in jobs(folder))
    assert f"student.width={best:.0f}" in line
    assert (folder / "figures" / "search.png").stat().st_size > 5000
    # The same command finds nothing left to do; another search does not fit.
    again = metakd(*words[:-2], "sweep.trials=7", f"hydra.sweep.dir={folder}")
    assert (again.status, "7 of 7 jobs done" in again.text) == (0, True)
    other = metakd(*words[:-2], "seed=3", f"hydra.sweep.dir={folder}")
    assert (other.status, "holds another search (other words)" in other.text) == (2, True)
    for words in (["sweep=seeds"], ["sweep=optuna", "student.width=1,2"]):
        refused = metakd("-m", *words, f"hydra.sweep.dir={folder}")
        assert (refused.status, refused.text.count("\n")) == (2, 1)
    assert len(story(folder)) == len(set(story(folder)))


def test_a_space_that_is_tried_out_ends_the_search(metakd: Any, tmp_path: Path) -> None:
    folder = tmp_path / "s"
    words = ["-m", "sweep=optuna", "student.width=10,20", "sweep.trials=9"]
    answer = metakd(*words, f"hydra.sweep.dir={folder}")
    assert answer.status == 0
    assert "2 of 2 jobs done" in answer.text
    assert "the space has 2 combinations; sweep.trials=9 is more than that" in answer.text
    assert len([line for line in story(folder) if line.endswith(" new")]) == 2
    again = metakd(f"resume={folder}", "sweep.trials=12")
    assert (again.status, "2 of 2 jobs done" in again.text) == (0, True)


@LINUX
def test_hopeless_trials_are_ended_and_stay_so(metakd: Any, tmp_path: Path) -> None:
    folder = tmp_path / "s"
    words = ["-m", "sweep=optuna", "student.width=40,50,20,60", "sweep.sampler=grid"]
    words += ["sweep.prune_after=2", "name=linger", f"hydra.sweep.dir={folder}"]
    text = metakd(*words).text
    assert "3 of 4 jobs done, 0 failed, 1 pruned" in text
    assert [job["status"] for job in jobs(folder)] == ["finished", "finished", "pruned", "finished"]
    assert states(folder) == ["COMPLETE", "COMPLETE", "PRUNED", "COMPLETE"]
    assert "2 saved" in story(folder)
    assert "20" not in text.partition("best trials")[2].partition("evaluated on")[0]
    # Killed before sweep.json could say so: it is not gone on with.
    content = json.loads((folder / "sweep.json").read_text())
    content["jobs"][2]["status"] = "running"
    (folder / "sweep.json").write_text(json.dumps(content))
    assert "1 pruned" in metakd(f"resume={folder}").text
    assert story(folder).count("2 again") == 0


def test_a_failing_trial_takes_no_other_along(metakd: Any, tmp_path: Path) -> None:
    folder = tmp_path / "s"
    words = ["-m", "sweep=optuna", WIDTHS, "sweep.sampler=grid", "name=fail"]
    answer = metakd(*words, "sweep.objectives=[accuracy,macs]", f"hydra.sweep.dir={folder}")
    text = answer.text
    assert answer.status == 1
    assert "job 1 failed: it broke" in text
    assert "4 of 5 jobs done, 1 failed" in text
    # More width is more accuracy and here less work: one trial beats all.
    front = text.partition("Pareto front")[2].partition("evaluated on")[0]
    assert front.count(" %") == 1
    assert states(folder, "accuracy", "macs")[1] == "RUNNING"
    text = metakd(f"resume={folder}", f"data_root={tmp_path}").text
    assert "5 of 5 jobs done" in text
    assert f"data_root={tmp_path}" in (folder / "1" / "words").read_text()
    assert states(folder, "accuracy", "macs") == ["COMPLETE"] * 5
    study = opened(folder / "optuna.journal", ["accuracy", "macs"])
    tried = tried_of(Sweep.load(folder), study)
    assert [one.number for one in best_of(tried, ["accuracy", "macs"])] == [4]
    assert study.trials[1].values == [0.2, 500.0]
    # What would change the trials that are left is refused, and so is a search without memory.
    for extra in ("seed=3", "sweep.objectives=[accuracy]", "resume_changed=true", "sweep.seed=4"):
        answer = metakd(f"resume={folder}", extra)
        assert (answer.status, answer.text.count("\n")) == (2, 1), answer.text
    (folder / "optuna.journal").unlink()
    assert "is missing" in metakd(f"resume={folder}").text


def test_a_trial_whose_tasks_diverged_says_so(metakd: Any, tmp_path: Path) -> None:
    """Its run is finished, and there is no mean squared error to judge it by."""
    folder = tmp_path / "s"
    words = ["-m", "sweep=optuna", "dataset=sinusoid", "algorithm=maml", "student=mlp"]
    words += ["student.width=10,20,30", "sweep.sampler=grid", "sweep.objectives=[mse]"]
    words += ["distill=none", "warmstart=none", "task.shots=10", "name=sine"]
    reason = (
        "job 1 failed: 25 % of its 10-shot tasks diverged at 5 adaptation steps, the first after 3 "
        "adaptation steps; there is no mean squared error; lower algorithm.inner_lr or "
    )
    answer = metakd(*words, f"hydra.sweep.dir={folder}")
    assert reason in answer.text
    assert "2 of 3 jobs done, 1 failed" in answer.text
    assert states(folder, "mse") == ["COMPLETE", "FAIL", "COMPLETE"]
    assert reason in metakd(f"resume={folder}").text
    assert story(folder).count("1 new") == 1


def test_nothing_is_made_of_a_space_that_is_wrong(metakd: Any, tmp_path: Path) -> None:
    for words, said in {
        ("student.widht=8,16",): "Did you mean 'student.width'",
        ("student.width=0,8",): "student.width=0: expected at least 1",
        (): "no parameter is left to search",
        ("student.width=8,16", "sweep.pruner=median", "sweep.objectives=[accuracy,macs]"): "Optuna",
        ("meta_train.lr=interval(0.1,0.2)", "sweep.sampler=grid"): "needs choices or a step",
        ("student.width=8,16", "hydra.run.dir=x"): "hydra.sweep.dir",
    }.items():
        answer = metakd("-m", "sweep=optuna", *words, f"hydra.sweep.dir={tmp_path}/s")
        assert answer.status == 2
        assert said in answer.text
        assert answer.text.count("\n") == 1
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("missing", ["optuna", "scipy"])
def test_without_optuna(
    metakd: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    words = ["sweep.sampler=gp", "student.width=8,16", f"hydra.sweep.dir={tmp_path}/s"]
    answer = metakd("-m", "sweep=optuna", *words)
    assert answer.status == 2
    assert "pip install 'metakd[search]'" in answer.text
    assert answer.text.count("\n") == 1
    assert not (tmp_path / "s").exists()


def test_a_search_is_no_single_run(metakd: Any) -> None:
    for words in (["sweep=search"], ["sweep.trials=3"], ["-m", "sweep=seeds", "sweep.trials=3"]):
        answer = metakd(*words)
        assert answer.status == 2
        assert "type -m" in answer.text or "sweep=search" in answer.text
