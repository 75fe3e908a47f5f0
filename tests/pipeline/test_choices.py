"""Every algorithm, and every embedded dataset, really runs with all other choices left to it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import metakd
from metakd.config.brings import described
from metakd.config.locate import Choices
from metakd.runs.folder import open_run

GOLDEN = Path(__file__).parents[1] / "golden"
TINY = (
    "dataset.images_per_class=6",
    "dataset.image_size=16",
    "teacher.width=4",
    "student.width=4",
    "task.queries=2",
    "task.train_queries=2",
    "task.meta_batch=2",
    "pretrain.epochs=0",
    "warmstart.epochs=1",
    "warmstart.batch_size=1024",
    "meta_train.iterations=2",
    "meta_train.validate_tasks=2",
    "evaluate.tasks=4",
    "evaluate.curve_tasks=2",
    "evaluate.shots=[]",
    "evaluate.steps=[]",
    "evaluate.transductive=false",
    "algorithm.inner_steps=1",
    "algorithm.inner_steps_test=1",
    "tracker=none",
)


def run(folder: Path, *words: str) -> dict[str, Any]:
    return metakd.train(*TINY, *words, f"hydra.run.dir={folder}")


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Lines that runs print, warnings among them."""
    lines: list[str] = []
    for name in ("say", "warn"):
        monkeypatch.setattr(f"metakd.tracking.progress.Progress.{name}",
                            lambda self, text: lines.append(text))  # fmt: skip
    return lines


@pytest.mark.parametrize("algorithm", Choices().of("algorithm"))
def test_any_algorithm_runs_alone(
    algorithm: str, tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = (GOLDEN / f"{algorithm}.json").is_file()
    if kept:  # tests/golden carries it out and compares every figure: here only how it begins
        monkeypatch.setattr("metakd.pipeline.run._stages", lambda *_: SimpleNamespace(content={}))
    results = run(tmp_path / "run", f"algorithm={algorithm}")
    brought = metakd.compose(f"algorithm={algorithm}").brought
    assert [line for line in said if " brings " in line] == [*described(brought)]
    assert not [line for line in said if "is published with" in line]  # its own outer optimiser
    if kept:
        return
    assert 0 <= results["student"]["fewshot"]["accuracy"] <= 1
    assert {"teacher", "student_alone", "fidelity", "gains"} <= results.keys()
    trained = [m for m in open_run(tmp_path / "run").read_metrics() if m["stage"] == "meta_train"]
    assert trained[-1]["step"] == 1


def test_what_was_brought_is_recorded_as_settings(tmp_path: Path, said: list[str]) -> None:
    run(tmp_path / "run", "algorithm=reptile", "student_alone=false")
    line = "meta_train.optimizer=plain_sgd meta_train.lr=1.0 meta_train.schedule=linear"
    assert said.count(f"algorithm=reptile brings {line}") == 1
    again = metakd.reproduce(tmp_path / "run", output=tmp_path / "again")
    assert again["same"], json.dumps(again, default=str)[:300]
    assert sum(" brings " in line for line in said) == 1


def test_regression_runs_alone(tmp_path: Path) -> None:
    words = [w for w in TINY if not w.startswith(("dataset.", "student."))]
    results = metakd.train(*words, "dataset=sinusoid", f"hydra.run.dir={tmp_path / 'run'}")
    assert results["student"]["fewshot"]["mse"] > 0
    assert results["student"]["fewshot"]["shots"] == 5
