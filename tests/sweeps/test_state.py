"""sweep.json: written, read, checked, locked; which combination is which job."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from metakd.errors import UserError
from metakd.runs.records_sweep import SearchRecord
from metakd.sweeps.state import Job, Sweep, is_sweep


def sweep(folder: Path, *jobs: list[str]) -> Sweep:
    return Sweep(folder, [Job(n, words) for n, words in enumerate(jobs)], 2, str(folder))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    before = sweep(tmp_path, ["seed=0", "name=été"], ["seed=1"])
    before.jobs[1].status, before.jobs[1].reason, before.jobs[1].pid = "failed", "ö", 7
    before.config_dir = "/conf"
    assert not is_sweep(tmp_path)
    before.save()
    assert is_sweep(tmp_path)
    after = Sweep.load(tmp_path)
    assert after.jobs == before.jobs
    assert (after.parallel, after.config_dir, after.start) == (2, "/conf", before.start)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": 2}, "schema"),
        ({"jobs": []}, "jobs"),
        ({"jobs": {}}, "jobs"),
        ({"parallel": 0}, "parallel"),
        ({"parallel": True}, "parallel"),
        ({"directory": None}, "directory"),
        ({"status": "done"}, "status"),
        ({"start": "now"}, "start"),
        ({"job": {"number": "../x"}}, "number"),
        ({"job": {"number": True}}, "number"),
        ({"job": {"overrides": ["--config-dir"]}}, "overrides"),
        ({"job": {"status": "ok"}}, "status"),
        ({"job": {"seconds": None}}, "seconds"),
    ],
    ids=str,
)
def test_damage_is_one_line(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    sweep(tmp_path, ["seed=0"]).save()
    content = json.loads((tmp_path / "sweep.json").read_text())
    content["jobs"][0].update(change.pop("job", {}))
    content.update(change)
    (tmp_path / "sweep.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=said) as refused:
        Sweep.load(tmp_path)
    assert "\n" not in str(refused.value)


def test_half_a_file(tmp_path: Path) -> None:
    (tmp_path / "sweep.json").write_text('{"schema": 1, "jo')
    with pytest.raises(UserError, match="cannot be read"):
        Sweep.opened(tmp_path)
    assert not (tmp_path / ".lock").exists()


def test_one_process_at_a_time(tmp_path: Path) -> None:
    sweep(tmp_path, ["seed=0"]).save()
    first = Sweep.opened(tmp_path)
    with pytest.raises(UserError, match="in progress"):
        Sweep.opened(tmp_path)
    first.unlock()
    Sweep.opened(tmp_path).unlock()


def test_the_same_combinations_in_another_order_and_place(tmp_path: Path) -> None:
    known = sweep(tmp_path, ["seed=0", "data_root=a"], ["seed=1", "data_root=a"])
    typed = [["data_root=b", "seed=1"], ["tracker=none", "seed=0"]]
    assert known.others(typed) == []
    assert [job.number for job in known.match(typed) if job] == [1, 0]
    known.adopt(typed, ["cpu", "cpu"])
    assert known.jobs[1].overrides == ["data_root=b", "seed=1"]
    assert known.jobs[1].device == "cpu"


def test_a_sweep_over_places_or_of_equal_jobs(tmp_path: Path) -> None:
    known = sweep(tmp_path, ["data_root=a"], ["data_root=b"], ["seed=1"], ["seed=1"])
    typed = [["seed=1"], ["data_root=b"], ["data_root=a"], ["seed=1"]]
    assert [job.number for job in known.match(typed) if job] == [2, 1, 0, 3]


def test_other_combinations(tmp_path: Path) -> None:
    known = sweep(tmp_path, ["seed=0"], ["seed=1"])
    typed = [["seed=1"], ["seed=2"]]
    assert known.others(typed) == ["new: seed=2", "no longer there: job 0 (seed=0)"]
    known.adopt(typed, ["auto", "auto"])
    assert [(j.number, j.overrides, j.asked) for j in known.jobs] == [
        (0, ["seed=0"], False),
        (1, ["seed=1"], True),
        (2, ["seed=2"], True),
    ]
    assert known.others([["seed=1"], ["seed=2"]]) == []


def test_a_search_may_have_no_job_yet(tmp_path: Path) -> None:
    search = SearchRecord(recipe="mine", settings={"seed": 1}, space={"a.b": {}}, words=["c=2"])
    Sweep(tmp_path, [], search=search, most=5).save()
    found = Sweep.load(tmp_path)
    assert (found.jobs, found.search, found.total) == ([], search, 0)
    found.most = 5
    assert found.total == 5
    content = json.loads((tmp_path / "sweep.json").read_text())
    (tmp_path / "sweep.json").write_text(json.dumps({**content, "search": "mine"}))
    with pytest.raises(UserError, match="'search' is 'mine', expected an object"):
        Sweep.load(tmp_path)
    for wrong, said in (({"recipe": 3}, "search.recipe"), ({"words": ["-m"]}, "search.words.0")):
        changed = {**content, "search": {**content["search"], **wrong}}
        (tmp_path / "sweep.json").write_text(json.dumps(changed))
        with pytest.raises(UserError, match=said):
            Sweep.load(tmp_path)
