"""What counts as the same, figure by figure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from metakd.errors import UserError
from metakd.runs.equality import compare, figures_of, finished_info
from metakd.runs.folder import RunFolder


def of(**values: Any) -> dict[str, dict[str, Any]]:
    return {"file": values}


def different(one: Any, other: Any) -> bool:
    found = compare(of(x=one), of(x=other))[0]
    assert found.figures == 1
    return bool(found.differences)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (0.1, 0.1 + 1e-18),
        ("inductive", "inductive"),
        (torch.tensor([float("nan"), 1.0]), torch.tensor([float("nan"), 1.0])),
        (torch.tensor(3), torch.tensor(3)),
        (torch.zeros(0, 2), torch.zeros(0, 2)),
        (torch.zeros(2, dtype=torch.bfloat16), torch.zeros(2, dtype=torch.bfloat16)),
        (torch.arange(6.0).reshape(2, 3).T, torch.arange(6.0).reshape(2, 3).T.contiguous()),
    ],
)
def test_the_same(one: Any, other: Any) -> None:
    assert not different(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (0.1, 0.1 + 2e-17),
        (1, True),
        (1, 1.0),
        ("inductive", "transductive"),
        (0.5, None),
        (torch.tensor([0.0]), torch.tensor([-0.0])),
        (torch.tensor([1.0]), torch.tensor([1.0], dtype=torch.float64)),
        (torch.zeros(2, 3), torch.zeros(3, 2)),
        (torch.zeros(0, 2), torch.zeros(0, 3)),
        (torch.tensor([1.0]), None),
        (torch.tensor([1.0]), torch.nextafter(torch.tensor([1.0]), torch.tensor([2.0]))),
    ],
)
def test_not_the_same(one: Any, other: Any) -> None:
    assert different(one, other)
    assert different(other, one)


def test_how_far_apart() -> None:
    cases = [
        (0.5, 0.25, 0.25),
        ("0.5", "0.75", 0.25),
        ("a", "b", None),
        (None, 1.0, None),
        (torch.tensor([1.0, 2.0]), torch.tensor([1.0, 5.0]), 3.0),
        (torch.tensor([True]), torch.tensor([False]), 1.0),
        (torch.tensor([1.0]), torch.tensor([float("nan")]), None),
        (torch.zeros(2), torch.zeros(3), None),
    ]
    for one, other, apart in cases:
        found = compare(of(x=one), of(x=other))[0].differences[0]
        assert found.difference == apart
        json.dumps([found.before, found.now], allow_nan=False)


def test_names_and_files_that_only_one_has() -> None:
    before = {"a": {"x": 1, "y": 2}, "b": {"z": 3}}
    now = {"a": {"x": 1, "w": 4}, "c": {"v": 5}}
    found = compare(before, now)
    assert [(f.file, f.figures) for f in found] == [("a", 3), ("b", 1)]
    assert [(d.name, d.before, d.now) for f in found for d in f.differences] == [
        ("y", 2, None),
        ("w", None, 4),
        ("z", 3, None),
    ]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder.create(tmp_path / "run")
    folder.start({})
    cost = {"macs": 5, "latency_ms": 1.0, "latency_batch_ms": 2.0, "peak_memory_bytes": 7}
    student = {"fewshot_all": [{"mse": 0.5}, {"mse": 0.25}], "cost": cost}
    folder.write_results({"student": student, "timing": {"meta_train_s": 3.0}})
    folder.write_episodes(
        {"model": "student", "shots": 1, "steps": 2, "task": i // 2, "mse": 0.5} for i in range(3)
    )
    folder.finish("finished")
    folder.unlock()
    return folder


def test_what_is_a_figure_of_a_run(run: RunFolder) -> None:
    assert figures_of(run) == {
        "results.json": {
            "student.fewshot_all.0.mse": 0.5,
            "student.fewshot_all.1.mse": 0.25,
            "student.cost.macs": 5,
        },
        "episodes.csv": {
            "model student, shots 1, steps 2, task 0": "0.5",
            "model student, shots 1, steps 2, task 0'": "0.5",  # a row twice is two rows
            "model student, shots 1, steps 2, task 1": "0.5",
        },
    }


def test_which_runs_have_figures(run: RunFolder) -> None:
    assert finished_info(run).status == "finished"
    run.update(resumed=[{"command": "metakd train resume=x"}])
    assert finished_info(run).status == "finished"  # it ends as if it had not stopped
    for status in ("failed", "interrupted"):
        run.update(status=status)
        with pytest.raises(UserError, match=f"status {status}"):
            finished_info(run)


def test_a_misshapen_table(run: RunFolder) -> None:
    (run.path / "episodes.csv").write_text('model,task\n"a\n')
    with pytest.raises(UserError, match=r"episodes\.csv' cannot be read"):
        figures_of(run)
    (run.path / "episodes.csv").write_text("model,task\na,1,2,3\nb\n")
    assert len(figures_of(run)["episodes.csv"]) == 2  # rows too long and too short are compared
