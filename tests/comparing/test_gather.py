"""Which runs there are below some folders, whatever became of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from metakd.comparing.gather import gather, read
from metakd.errors import UserError

Made = Callable[..., Path]


def names(runs, top: Path) -> list[str]:
    return [run.path.relative_to(top).as_posix() for run in runs]


def test_a_folder_stands_for_all_runs_in_it_in_the_order_of_their_numbers(
    made_up: Made, tmp_path: Path
) -> None:
    for job in (10, 2, 0):
        made_up(tmp_path / "sweep" / "day" / str(job))
    made_up(tmp_path / "alone")
    made_up(tmp_path / "alone" / "inner")  # hydra.run.dir may be anywhere
    runs, notes = gather([tmp_path])
    expected = ["alone", "alone/inner", "sweep/day/0", "sweep/day/2", "sweep/day/10"]
    assert (names(runs, tmp_path), notes) == (expected, [])
    assert all(run.status == "finished" and run.path.is_absolute() for run in runs)


def test_a_run_is_there_once(made_up: Made, tmp_path: Path) -> None:
    run = made_up(tmp_path / "a" / "run")
    (tmp_path / "link").symlink_to(run)
    runs, _ = gather([run, tmp_path, run / ".." / "run", tmp_path / "link"])
    assert names(runs, tmp_path) == ["a/run"]


def test_order_is_that_of_the_command_line(made_up: Made, tmp_path: Path) -> None:
    made_up(tmp_path / "a")
    made_up(tmp_path / "b")
    runs, _ = gather([tmp_path / "b", tmp_path])
    assert names(runs, tmp_path) == ["b", "a"]


def test_evaluations_are_no_runs_unless_they_are_named(made_up: Made, tmp_path: Path) -> None:
    run = made_up(tmp_path / "run", seed=7, info={"teacher": "f" * 64})
    again = made_up(
        run / "evaluations" / "now", info={"evaluates": "../..", "seed": None}, settings={"seed": 3}
    )
    made_up(run / "checkpoints" / "stray")
    assert names(gather([tmp_path])[0], tmp_path) == ["run"]
    (found,), _ = gather([again])
    assert (found.is_evaluation, found.seed) == (True, 7)  # the seed of what it evaluated
    assert found.info.teacher == "f" * 64


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("run.json", "{", "no JSON"),
        ("run.json", '{"schema": 1, "status": "done"}', "'status' is 'done'"),
        ("run.json", None, "no run.json"),
        ("results.json", '{"schema": 1, "student": {"fewshot": {"accuracy": 1.5}}}', "1.5"),
        ("results.json", None, "has no results"),
        (".hydra/config.yaml", "a: [", "cannot be read"),
        (".hydra/config.yaml", None, "cannot be read"),
    ],
)
def test_damaged_runs_are_listed_with_their_reason(
    made_up: Made, tmp_path: Path, file: str, content: str | None, reason: str
) -> None:
    run = made_up(tmp_path / "run")
    if content is None:
        (run / file).unlink()
    else:
        (run / file).write_text(content)
    (found,), _ = gather([tmp_path])
    assert (found.status, found.results) == ("damaged", None)
    assert reason in (found.reason or "")
    assert "\n" not in (found.reason or "")


def test_a_failed_run_says_why(made_up: Made, tmp_path: Path) -> None:
    made_up(tmp_path / "run", status="failed", info={"error": "the disk is full"})
    (found,), _ = gather([tmp_path])
    assert (found.status, found.reason, found.results) == ("failed", "the disk is full", None)
    # It may have failed before it could record anything.
    (tmp_path / "run" / ".hydra" / "config.yaml").unlink()
    (found,), _ = gather([tmp_path])
    assert (found.status, found.reason) == ("failed", "the disk is full")


def test_a_run_whose_process_is_gone_is_interrupted(made_up: Made, tmp_path: Path) -> None:
    from metakd.runs.process import host_name

    dead = {"pid": 2**22 + 1, "host": host_name(), "process_start": "never"}
    made_up(tmp_path / "dead", status="running", info=dead)
    made_up(tmp_path / "elsewhere", status="running", info={**dead, "host": "another machine"})
    runs, _ = gather([tmp_path])
    assert [run.status for run in runs] == ["interrupted", "running"]


def test_jobs_of_a_multirun_that_have_no_run(made_up: Made, tmp_path: Path) -> None:
    made_up(tmp_path / "0")
    jobs = [
        {"number": 0, "status": "finished", "overrides": ["seed=0"]},
        {"number": 1, "status": "failed", "reason": "no such file", "overrides": ["seed=1"]},
        {"number": 2, "status": "waiting", "reason": None, "overrides": ["seed=2"]},
        {"number": 3, "status": "waiting", "overrides": ["seed=3"], "asked": False},
        {"number": 4, "status": "finished", "overrides": ["seed=4"]},
    ]
    (tmp_path / "sweep.json").write_text(json.dumps({"schema": 1, "jobs": jobs}))
    runs, notes = gather([tmp_path])
    found = {run.path.name: (run.status, run.reason) for run in runs}
    assert found == {
        "0": ("finished", None),
        "1": ("failed", "seed=1: no such file"),
        "2": ("waiting", "seed=2"),
        "4": ("damaged", "seed=4: its run is missing"),
    }
    assert notes == []
    (tmp_path / "sweep.json").write_text('{"jobs": [{"number": "x"}]}')
    runs, notes = gather([tmp_path])
    assert names(runs, tmp_path) == ["0"]
    assert "sweep.json' cannot be read" in notes[0]


def test_trials_that_a_search_ended_are_pruned(made_up: Made, tmp_path: Path) -> None:
    for name in "01":
        made_up(tmp_path / name, status="interrupted")
    jobs = [
        {"number": 0, "status": "pruned", "overrides": []},
        {"number": 1, "status": "interrupted", "overrides": []},
    ]
    (tmp_path / "sweep.json").write_text(json.dumps({"schema": 1, "jobs": jobs}))
    runs, _ = gather([tmp_path])
    assert [run.status for run in runs] == ["pruned", "interrupted"]
    (tmp_path / "sweep.json").write_text("{")
    runs, _ = gather([tmp_path])
    assert [run.status for run in runs] == ["interrupted", "interrupted"]


def test_no_run_is_an_error(made_up: Made, tmp_path: Path) -> None:
    made_up(tmp_path / "outputs" / "run")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"there is no run in '.*empty'; name a run's folder"):
        gather([tmp_path / "empty"])
    with pytest.raises(UserError, match=r"does not exist\. Did you mean '.*outputs'") as refused:
        gather([tmp_path / "output"])
    assert "\n" not in str(refused.value)


def test_what_a_shell_s_star_names_beside_runs_is_passed_over(
    made_up: Made, tmp_path: Path
) -> None:
    made_up(tmp_path / "run")
    (tmp_path / "run.log").write_text("")
    (tmp_path / "empty").mkdir()
    runs, notes = gather([tmp_path / n for n in ("empty", "run", "run.log")])
    assert names(runs, tmp_path) == ["run"]
    assert [note.split("'")[0] for note in notes] == ["there is no run in ", ""]
    with pytest.raises(UserError, match="there is no run in"):
        gather([tmp_path / "run.log"])


def test_results_without_headline_figures(made_up: Made, tmp_path: Path) -> None:
    run = made_up(tmp_path / "run", entry={"shots": None})
    assert read(run).headlines == {}
    assert read(run).status == "finished"


def test_copies_are_said(made_up: Made, tmp_path: Path) -> None:
    process = {"host": "h", "pid": 3, "process_start": "1", "start": 1.0, "end": 2.0}
    made_up(tmp_path / "a", info=process)
    made_up(tmp_path / "b", {"student": {1: [0.1, 0.2]}}, info=process)  # no longer the same
    made_up(tmp_path / "c", info={**process, "pid": 4})
    assert gather([tmp_path])[1] == []
    made_up(tmp_path / "d", info=process)
    runs, (note,) = gather([tmp_path])
    assert len(runs) == 4
    assert note.startswith(f"'{tmp_path}/d' is a copy of '{tmp_path}/a': each counts as a run")
