"""Pages are told what has changed, and nothing else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from metakd.dashboard import board as module
from metakd.dashboard.board import Board

Made = Callable[..., Path]


@pytest.fixture(autouse=True)
def _restless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REST_S", 0.0)


def paths(answer) -> list[str]:
    return [row["path"] for row in answer["rows"]]


def test_all_at_first_then_nothing(made_up: Made, tmp_path: Path) -> None:
    for name in "ab":
        made_up(tmp_path / name)
    board = Board(tmp_path)
    first = board.changes()
    assert (first["anew"], paths(first)) == (True, ["a", "b"])
    assert {"head", "order"} <= first.keys()
    again = board.changes(first["now"])
    assert again == {"now": first["now"], "anew": False, "rows": []}


def test_one_changed_run_is_sent_alone(made_up: Made, tmp_path: Path) -> None:
    for name in "ab":
        made_up(tmp_path / name)
    running = made_up(tmp_path / "c", status="running", info={"stage": "meta_train"})
    board = Board(tmp_path)
    now = board.changes()["now"]
    line = {"stage": "meta_train", "step": 4, "time": 1.0, "metrics": {"loss": 1.0}}
    (running / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    answer = board.changes(now)
    assert paths(answer) == ["c"]
    assert answer["rows"][0]["progress"] == {"stage": "meta_train", "step": 5}
    assert "head" not in answer
    assert "order" not in answer
    info = json.loads((running / "run.json").read_text())
    (running / "run.json").write_text(json.dumps({**info, "status": "failed", "error": "why"}))
    later = board.changes(answer["now"])
    assert [(row["status"], row["reason"]) for row in later["rows"]] == [("failed", "why")]
    assert "progress" in later["rows"][0]
    # A page that slept through both is told once.
    assert paths(board.changes(now)) == ["c"]


def test_runs_that_come_and_go(made_up: Made, tmp_path: Path) -> None:
    made_up(tmp_path / "a")
    board = Board(tmp_path)
    first = board.changes()
    made_up(tmp_path / "b", settings={"meta_train.lr": 0.5})
    second = board.changes(first["now"])
    assert paths(second) == ["a", "b"]  # there is a setting now in which they differ
    assert second["head"]["settings"] == ["meta_train.lr"]
    assert len(second["order"]) == 2
    shutil.rmtree(tmp_path / "a")
    third = board.changes(second["now"])
    assert len(third["order"]) == 1
    gone = first["order"][0]
    assert board.run(gone) is None
    shutil.rmtree(tmp_path / "b")
    assert board.changes(third["now"])["order"] == []


@pytest.mark.parametrize("since", ["", "x", "0.0", "abc.-1", "abc.5"])
def test_who_follows_another_server_gets_everything(
    made_up: Made, tmp_path: Path, since: str
) -> None:
    made_up(tmp_path / "a")
    answer = Board(tmp_path).changes(since)
    assert (answer["anew"], paths(answer)) == (True, ["a"])


def test_waiting_jobs_do_not_make_all_rows_anew(
    made_up: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_up(tmp_path / "0")
    jobs = [{"number": n, "status": "waiting", "overrides": [f"seed={n}"]} for n in (0, 1)]
    (tmp_path / "sweep.json").write_text(json.dumps({"schema": 1, "jobs": jobs}))
    board = Board(tmp_path)
    now = board.changes()["now"]
    monkeypatch.setattr(module, "rows_of", None)  # would fail if it were called
    assert board.changes(now)["rows"] == []


def test_the_folder_is_not_looked_at_for_every_question(
    made_up: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REST_S", 3600.0)
    made_up(tmp_path / "a")
    board = Board(tmp_path)
    board.changes()
    made_up(tmp_path / "b")
    assert paths(board.changes()) == ["a"]
