"""Runs whose adaptation leaves the numbers: what they report, and what others make of it."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

import metakd
from metakd.runs.folder import open_run

SCHEMAS = Path(__file__).resolve().parents[2] / "docs" / "schemas"
NOT_TRAINED = (
    "algorithm=maml",
    "distill=none",
    "pretrain=none",
    "warmstart=none",
    "meta_train.iterations=0",
    "evaluate.tasks=20",
    "evaluate.curve_tasks=20",
    "evaluate.shots=[]",
    "evaluate.transductive=false",
    "algorithm.inner_steps=1",
    "tracker=none",
)
GLYPHS = (
    "dataset.image_size=16",
    "dataset.images_per_class=4",
    "task.queries=3",
    "task.train_queries=3",
    "student.width=4",
)
SINUSOID = ("dataset=sinusoid", "student=mlp", "student.width=null", "task.shots=5")


def run(folder: Path, *overrides: str) -> dict[str, Any]:
    return metakd.train(*NOT_TRAINED, *overrides, f"hydra.run.dir={folder}")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four runs: of each kind one whose adaptation diverges and one whose does not."""
    top = tmp_path_factory.mktemp("diverging")
    far = ("algorithm.inner_steps_test=8", "evaluate.steps=[0,2,4]")
    run(top / "glyphs", *GLYPHS, *far, "algorithm.inner_lr=1e30")
    run(top / "glyphs_sound", *GLYPHS, *far, "algorithm.inner_lr=0.01")
    run(top / "sinusoid", *SINUSOID, *far, "algorithm.inner_lr=20")
    run(top / "sinusoid_sound", *SINUSOID, *far, "algorithm.inner_lr=0.01")
    return top


def student(folder: Path) -> dict[str, Any]:
    return open_run(folder).read_results().content["student"]  # type: ignore[no-any-return]


def episodes(folder: Path) -> list[dict[str, str]]:
    with (folder / "episodes.csv").open() as file:
        return list(csv.DictReader(file))


def test_classification_counts_it_as_wrong(runs: Path) -> None:
    head = student(runs / "glyphs")["fewshot"]
    assert head["diverged"] == 1.0
    assert head["accuracy"] == 0.0  # not a fifth, as class 0 would have been
    assert head["diverged_from_step"] in (2, 4, 8)
    start = student(runs / "glyphs")["fewshot_all"][1]
    assert start["steps"] == 0
    assert "diverged" not in start
    rows = [r for r in episodes(runs / "glyphs") if r["steps"] == "8"]
    assert [r["diverged"] for r in rows] == ["1"] * 20


def test_regression_has_no_mean(runs: Path) -> None:
    results = json.loads((runs / "sinusoid" / "results.json").read_text())
    head = results["student"]["fewshot"]
    assert not {"mse", "ci95"} & head.keys()
    assert head["diverged"] == 1.0
    assert {"student.fewshot.mse", "student.fewshot.ci95"} <= set(results["not_finite"])
    rows = [r for r in episodes(runs / "sinusoid") if r["steps"] == "8"]
    assert [r["diverged"] for r in rows] == ["1"] * 20
    # Huge, but finite: no figure either.
    huge = student(runs / "sinusoid")["fewshot_all"]
    assert any(e.get("diverged") and e["steps"] == 2 for e in huge)
    finite = [r for r in episodes(runs / "sinusoid") if r["steps"] == "2" and r["mse"]]
    assert any(float(r["mse"]) > 1e6 and r["diverged"] == "1" for r in finite)
    assert (runs / "sinusoid" / "figures" / "accuracy_against_steps.png").exists() is False


@pytest.mark.parametrize("kind", ["glyphs", "sinusoid"])
def test_a_sound_run_says_nothing_of_it(runs: Path, kind: str) -> None:
    folder = runs / f"{kind}_sound"
    assert "diverged" not in (folder / "results.json").read_text()
    assert "diverged" not in (folder / "episodes.csv").read_text()


@pytest.mark.parametrize("kind", ["glyphs", "sinusoid"])
def test_the_schema_holds(runs: Path, kind: str) -> None:
    schema = json.loads((SCHEMAS / "results.schema.json").read_text())
    results = json.loads((runs / kind / "results.json").read_text())
    assert [e.message for e in Draft202012Validator(schema).iter_errors(results)] == []


def test_evaluated_again_with_another_rate_it_diverges(runs: Path) -> None:
    again = metakd.evaluate(runs / "glyphs_sound", "algorithm.inner_lr=1e30", quiet=True)
    assert again["student"]["fewshot"]["diverged"] == 1.0
    back = metakd.evaluate(runs / "sinusoid", "algorithm.inner_lr=0.01", quiet=True)
    assert math.isfinite(back["student"]["fewshot"]["mse"])


def test_a_student_without_numbers_is_never_the_best(tmp_path: Path) -> None:
    results = run(
        tmp_path / "run",
        *GLYPHS,
        "meta_train.iterations=1",
        "meta_train.lr=1e-9",
        "task.train_ways=5",
        "task.meta_batch=1",
        "algorithm.inner_lr=1e-3",
        "meta_train.validate_tasks=4",
        "algorithm.inner_steps_test=0",
        "evaluate.steps=[]",
    )
    assert "validated" in results["student"]
    lost = run(
        tmp_path / "lost",
        *SINUSOID,
        "meta_train.iterations=1",
        "meta_train.lr=1e-9",
        "task.meta_batch=1",
        "algorithm.inner_lr=1",
        "meta_train.validate_tasks=4",
        "algorithm.inner_steps_test=40",
        "evaluate.steps=[]",
    )
    assert "validated" not in lost["student"]
    line = json.loads((tmp_path / "lost" / "metrics.jsonl").read_text().splitlines()[-1])
    assert line["metrics"]["validate/mse"] is None


def test_validation_that_gives_no_answer_chooses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from metakd.adaptation.gradient_learner import GradientLearner

    sound = GradientLearner.predict_modes

    def lost(self: Any, *arguments: Any, **named: Any) -> torch.Tensor:
        return sound(self, *arguments, **named) * math.nan

    monkeypatch.setattr(GradientLearner, "predict_modes", lost)
    results = run(
        tmp_path / "run",
        *GLYPHS,
        "meta_train.iterations=1",
        "task.train_ways=5",
        "task.meta_batch=1",
        "meta_train.validate_tasks=4",
        "evaluate.steps=[]",
    )
    assert "validated" not in results["student"]
    assert results["student"]["fewshot"]["accuracy"] == 0.0
    assert "student.calibration.ece" in results["not_finite"]
