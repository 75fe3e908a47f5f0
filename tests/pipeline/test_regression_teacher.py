"""Distillation on regression: a meta-trained teacher, what it changes, and where it goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import metakd
from metakd.config.compose import compose
from metakd.errors import UserError
from metakd.pipeline.prepare import prepare

SHORT = (
    "dataset=sinusoid",
    "distill=kd",
    "student.widths=[4]",
    "teacher.widths=[12]",
    "task.meta_batch=4",
    "task.queries=5",
    "algorithm.inner_steps=1",
    "algorithm.inner_steps_test=2",
    "meta_train.iterations=6",
    "meta_train.validate_every=3",
    "meta_train.validate_tasks=4",
    "pretrain.updates=12",
    "evaluate.tasks=20",
    "evaluate.shots=[]",
    "evaluate.steps=[]",
    "tracker=none",
)


def run(folder: Path, *overrides: str) -> dict[str, Any]:
    return metakd.train(*SHORT, *overrides, f"hydra.run.dir={folder}", quiet=True)


def weights(folder: Path, model: str) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoints" / f"{model}.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    assert one.keys() == other.keys()
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    folder = tmp_path_factory.mktemp("regression") / "taught"
    return run(folder), folder


def test_teacher_twin_and_fidelity_are_reported(taught: tuple[dict[str, Any], Path]) -> None:
    results, folder = taught
    for model in ("student", "student_alone", "teacher"):
        assert results[model]["fewshot"]["mse"] > 0
        assert "calibration" not in results[model]
    assert results["fidelity"].keys() == {"mse"}
    assert results["fidelity"]["mse"] > 0
    assert results["gains"][0]["measure"] == "mse"
    assert results["timing"]["pretrain_s"] > 0
    lines = [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]
    names = {stage: set[str]() for stage in ("pretrain", "meta_train", "meta_train_alone")}
    for line in lines:
        names.setdefault(line["stage"], set()).update(line["metrics"])
    assert "validate/mse" in names["pretrain"]
    assert {"loss/ce", "loss/kd", "teacher/ce"} <= names["meta_train"]
    assert "loss/kd" not in names["meta_train_alone"]
    (row,) = metakd.compare(folder)
    assert row["teacher_mse_5shot"] == results["teacher"]["fewshot"]["mse"]


def test_a_weight_of_0_is_the_twin_to_the_bit_and_1_is_not(
    taught: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    results, folder = taught
    bare = run(tmp_path / "bare", "distill.kd_weight=0")
    assert bare["student"]["fewshot"] == bare["student_alone"]["fewshot"]
    assert same(weights(tmp_path / "bare", "student"), weights(folder, "student_alone"))
    assert results["student"]["fewshot"]["mse"] != results["student_alone"]["fewshot"]["mse"]
    warnings = json.loads((tmp_path / "bare" / "run.json").read_text())["warnings"]
    assert any("the teacher had no effect" in line for line in warnings)


def test_the_teacher_is_evaluated_and_used_again(
    taught: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    results, folder = taught
    again = metakd.evaluate(folder, quiet=True)
    for model in ("student", "student_alone", "teacher"):
        assert again[model]["fewshot"] == results[model]["fewshot"]
    assert again["fidelity"] == results["fidelity"]
    # As another run's teacher, head included: fixed, it is the same afterwards.
    words = (f"teacher.checkpoint={folder}", "distill.teacher_learns=false", "student_alone=false")
    other = run(tmp_path / "other", *words)
    assert other["teacher"]["fewshot"] == results["teacher"]["fewshot"]
    assert same(weights(tmp_path / "other", "teacher"), weights(folder, "teacher"))
    # Nothing distilled, it is only measured.
    beside = run(tmp_path / "beside", words[0], "distill=none", "meta_train.iterations=0")
    assert beside["teacher"]["fewshot"] == results["teacher"]["fewshot"]
    model = metakd.load(folder, which="teacher")
    model.fit([[0.0], [1.0]], [[0.0], [1.0]])
    assert model.predict([[0.5]]).shape == (1, 1)


def test_training_before_and_beside_the_student_moves_the_teacher(
    taught: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    _, folder = taught
    run(tmp_path / "fixed", "distill.teacher_learns=false", "student_alone=false")
    fresh = run(tmp_path / "fresh", "pretrain=none", "distill.teacher_mode=co_meta")
    assert "pretrain_s" not in fresh["timing"]
    states = [weights(tmp_path / name, "teacher") for name in ("fixed", "fresh")]
    assert not same(states[0], weights(folder, "teacher"))
    assert not same(states[1], weights(folder, "teacher"))
    with pytest.raises(UserError, match="saved from another architecture"):
        run(tmp_path / "no", f"teacher.checkpoint={folder}", "teacher.widths=[5]")
    assert not (tmp_path / "no").exists()


def test_a_teacher_no_larger_than_its_student_is_named() -> None:
    words = ("dataset=sinusoid", "distill=kd", "teacher=mlp")
    (line,) = [w for w in prepare(compose(words)).warnings if "no larger" in w]
    assert "teacher=mlp_wide" in line
    assert not [w for w in prepare(compose(words[:2])).warnings if "no larger" in w]
