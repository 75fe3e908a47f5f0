"""What the page is told of each run, and what all have in common."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from metakd.comparing.figures import COSTS
from metakd.dashboard.page import part
from metakd.dashboard.rows import letter, rows_of
from metakd.dashboard.watch import Watch

Made = Callable[..., Path]


def rows(folder: Path):
    watch = Watch(folder)
    made = rows_of(watch, *watch.look())
    return made.head, {row["path"]: row for row in made.rows.values()}


def test_a_finished_run(made_up: Made, tmp_path: Path) -> None:
    figures = {"student": {1: [0.5, 0.7], 5: [0.8, 0.9]}, "teacher": {1: [0.9, 0.9]}}
    cost = {"parameters": 7184, "macs": 7e5, "latency_ms": 0.2}
    run = made_up(tmp_path / "a", figures, settings={"algorithm.name": "maml"}, cost=cost,
                  info={"start": 100.0, "end": 160.0})  # fmt: skip
    made_up(tmp_path / "b")
    (run / "metrics.jsonl").write_text("x" * 17)
    head, found = rows(tmp_path)
    row = found["a"]
    assert (row["status"], row["seed"], row["measure"]) == ("finished", 0, "accuracy")
    assert row["tasks"] == 2
    assert row["shots"] == 1  # the headline's, of which the costs of a task are
    assert row["accuracy"]["student"]["1"][0] == 0.6
    assert row["accuracy"]["student"]["5"][0] == 0.85000000000000009
    assert row["accuracy"]["teacher"]["1"] == [0.9, 0.0]
    assert row["cost"]["student"] == cost
    assert (row["start"], row["end"], row["logged"]) == (100.0, 160.0, 17)
    assert row["settings"] == {"algorithm": "maml"}
    assert (head["settings"], head["shots"]) == (["algorithm"], [1])
    assert head["folder"] == str(tmp_path.resolve())
    assert "progress" not in row


def test_costs_that_compare_shows_are_columns_and_axes(made_up: Made, tmp_path: Path) -> None:
    cost = dict.fromkeys(COSTS, 2.5) | {"parameters": 2}
    made_up(tmp_path / "a", cost=cost)
    assert rows(tmp_path)[1]["a"]["cost"]["student"] == cost
    columns, axes = (part(name).decode("utf-8") for name in ("columns.js", "costs.js"))
    for key, name in COSTS.items():
        assert f'    {key}: ["{name}", ' in columns
        assert f'["{key}", "{name}"]' in axes


def test_sets_are_lettered_and_the_reason_said(made_up: Made, tmp_path: Path) -> None:
    for name in "ab":
        made_up(tmp_path / name)
    made_up(tmp_path / "c", settings={"evaluate.seed": 7})
    made_up(tmp_path / "d", status="failed", info={"error": "the disk is full"})
    head, found = rows(tmp_path)
    assert [one["letter"] for one in head["sets"]] == ["A", "B"]
    assert [one["runs"] for one in head["sets"]] == [2, 1]
    assert head["apart"] == [
        "B cannot be compared with A: other evaluation seed (evaluate.seed): 12345 and 7"
    ]
    assert [found[name].get("set") for name in "abcd"] == [0, 0, 1, None]
    assert (found["d"]["status"], found["d"]["reason"]) == ("failed", "the disk is full")
    assert "accuracy" not in found["d"]


def test_runs_that_differ_in_the_seed_have_one_group(made_up: Made, tmp_path: Path) -> None:
    for seed in (0, 1):
        made_up(tmp_path / f"plain{seed}", seed=seed)
        made_up(tmp_path / f"other{seed}", seed=seed, settings={"meta_train.lr": 0.5})
    _, found = rows(tmp_path)
    groups = {name: row["group"] for name, row in found.items()}
    assert groups["plain0"] == groups["plain1"] != groups["other0"] == groups["other1"]
    assert found["other1"]["settings"] == {"meta_train.lr": 0.5}


def test_a_setting_of_a_stage_that_is_off_is_left_out(made_up: Made, tmp_path: Path) -> None:
    made_up(tmp_path / "a", settings={"warmstart.lr": 0.1})
    made_up(tmp_path / "b")
    made_up(tmp_path / "c", settings={"warmstart.enabled": False, "warmstart.lr": 0.7})
    _, found = rows(tmp_path)
    assert "warmstart.lr" in found["a"]["settings"]
    assert "warmstart.lr" not in found["c"]["settings"]


def test_how_far_a_run_is(made_up: Made, tmp_path: Path) -> None:
    info = {"stage": "meta_train", "stage_steps": 300}
    run = made_up(tmp_path / "run", status="interrupted", info=info)
    line = {"stage": "meta_train", "step": 119, "time": 1.0, "metrics": {"loss": 1.0}}
    (run / "metrics.jsonl").write_text(json.dumps(line) + "\n" + '{"stage": "meta_tr')
    _, found = rows(tmp_path)
    assert found["run"]["progress"] == {"stage": "meta_train", "steps": 300, "step": 120}
    line["stage"] = "warmstart"
    (run / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    _, found = rows(tmp_path)
    assert found["run"]["progress"] == {"stage": "meta_train", "steps": 300}


def test_values_of_all_kinds_can_be_sent(made_up: Made, tmp_path: Path) -> None:
    settings = {"evaluate.shots": [1, 3, 5], "task.train_shots": 3, "tags": ["a<b>", 5]}
    made_up(tmp_path / "a", settings=settings)
    made_up(tmp_path / "b", settings={"meta_train.lr": float("inf")})
    head, found = rows(tmp_path)
    json.dumps([head, found], allow_nan=False)
    assert found["a"]["settings"]["evaluate.shots"] == "[1,3,5]"
    assert found["a"]["tags"] == ["a<b>", "5"]
    assert found["b"]["settings"]["meta_train.lr"] == "inf"


def test_runs_with_outside_pretraining_are_told_apart(made_up: Made, tmp_path: Path) -> None:
    theirs = {"external_pretraining": ["teacher: pretrained resnet18"], "warnings": ["a doubt"]}
    made_up(tmp_path / "a", info=theirs, settings={"teacher.pretrained": True})
    own = {"external_pretraining": ["teacher: outputs/b"]}  # a checkpoint of our own
    made_up(tmp_path / "b", info=own)
    head, found = rows(tmp_path)
    assert (found["a"]["outside"], found["a"]["warnings"]) == (
        ["teacher: pretrained resnet18"],
        ["a doubt"],
    )
    assert not {"outside", "warnings"} & found["b"].keys()
    (line,) = head["outside"]
    assert line.startswith("with outside pre-training: a (teacher: pretrained resnet18); the other")


def test_letters() -> None:
    assert [letter(n) for n in (0, 25, 26, 27, 701, 702)] == ["A", "Z", "AA", "AB", "ZZ", "AAA"]
