"""What is typed for the sweep itself, and what tells its jobs apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from metakd.config.overrides import parse
from metakd.errors import UserError
from metakd.sweeps.plan import asked_of, combinations, composed_jobs, placed, varying


def test_settings_of_the_sweep_do_not_reach_the_jobs() -> None:
    words = ["seed=0,1", "sweep.jobs=3", "resume_changed=true", "hydra.sweep.dir=x"]
    asked = asked_of(words)
    assert (asked.parallel, asked.changed) == (3, True)
    assert asked.rest == ["seed=0,1", "hydra.sweep.dir=x"]
    assert combinations(words) == ([["seed=0"], ["seed=1"]], ["hydra.sweep.dir='x'"])
    assert asked_of(["seed=0"]).parallel is None


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("sweep.jobs=0", "from 1 to"),
        ("sweep.jobs=two", "whole number"),
        ("sweep.jobs=1,2", "whole number"),
        ("sweep.jobs=", "whole number"),
        ("sweep.job=2", "Did you mean 'sweep.jobs'?"),
        ("resume_changed=maybe", "true or false"),
    ],
)
def test_refused(word: str, said: str) -> None:
    with pytest.raises(UserError, match=said.replace("?", r"\?")):
        asked_of([word])


def test_resume_is_no_setting_of_a_job() -> None:
    with pytest.raises(UserError, match="without -m"):
        combinations(["seed=0,1", "resume=x"])


def test_a_job_that_would_be_run_twice() -> None:
    with pytest.raises(UserError, match=r"jobs 0 and 4 would be the same run: seed=0 distill=kd"):
        combinations(["seed=0,1,0", "distill=kd,none", "name=a"])


def test_several_paths_are_typed_as_a_choice(tmp_path: Path) -> None:
    words = ["dataset=image_folder", f"dataset.folder={tmp_path}/a,{tmp_path}/b"]
    jobs, own = combinations(words)
    with pytest.raises(UserError, match=r"several are dataset\.folder=choice\(A,B\)$"):
        composed_jobs(jobs, own, None)
    jobs, _ = combinations([words[0], f"dataset.folder=choice({tmp_path}/a,{tmp_path}/b)"])
    assert len(jobs) == 2


def test_names_of_jobs() -> None:
    jobs = {0: ["a=1", "b=2", "c=x"], 4: ["a=1", "b=3", "c=x"]}
    assert varying(jobs) == {0: "b=2", 4: "b=3"}
    assert varying({2: ["a=1"]}) == {2: "a=1"}
    assert varying({}) == {}


def test_paths_mean_the_same_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = placed(parse(["data_root=d", "seed=1", "teacher.checkpoint=null"]))
    assert words == [f"data_root={tmp_path}/d", "seed=1", "teacher.checkpoint=null"]
