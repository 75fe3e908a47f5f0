"""Learning curves: every term as it enters the total, student and twin apart, chance and choice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from metakd.distillation.kd import KD
from metakd.distillation.kd_convex import KDConvex
from metakd.distillation.objective import Objective
from metakd.reports.curves import StageScale, learning_curves, read_series, running_mean


def write_metrics(path: Path, stages: dict[str, dict[str, list[float]]]) -> Path:
    lines = []
    for stage, metrics in stages.items():
        for step in range(max(len(v) for v in metrics.values())):
            now = {k: v[step] for k, v in metrics.items() if step < len(v)}
            lines.append(json.dumps({"stage": stage, "step": step, "time": 0, "metrics": now}))
    path.write_text("\n".join(lines) + '\n{"cut sho')
    return path


def _lines(axes: Any) -> dict[str, list[float]]:
    return {
        line.get_label(): list(line.get_ydata())
        for line in axes.lines
        if not line.get_label().startswith("_")
    }


FALL, RISE = [3.0, 2.0, 1.0], [0.2, 0.4, 0.6]


@pytest.fixture
def axes(tmp_path: Path, drawn: list[Any]) -> list[Any]:
    """Of a stage with student and twin: two of losses, two of accuracies."""
    student = {"loss": FALL, "loss/ce": FALL, "loss/kd": FALL, "loss/l1": FALL}
    student |= {"student/accuracy": RISE, "teacher/accuracy": RISE, "adversarial/accuracy": RISE}
    twin = {"loss": FALL, "student/accuracy": RISE, "validate/accuracy": [0.1, 0.5, 0.5]}
    stages = {"meta_train": student, "meta_train_alone": twin, "evaluate": {"x": [1.0]}}
    path = write_metrics(tmp_path / "metrics.jsonl", stages)
    out = tmp_path / "new" / "curves.png"
    weights = {"loss/ce": 1.0, "loss/kd": 0.5}
    scales = {"meta_train": StageScale(1 / 64, 0.2, 100, keeps_best=True)}
    assert learning_curves(path, out, weights, scales) == out
    assert out.is_file()
    return list(drawn[0].axes)


def test_terms_are_drawn_as_they_enter_the_total(axes: list[Any]) -> None:
    assert axes[0].get_title() == "meta train"
    assert axes[0].get_ylabel() == "student: loss"
    assert _lines(axes[0]) == {
        "ce": FALL,
        "0.5 × kd": [1.5, 1.0, 0.5],
        "l1, before its weight": FALL,  # nobody said what it is
        "total": FALL,
    }


def test_student_and_twin_have_axes_of_their_own(axes: list[Any]) -> None:
    assert [a.get_ylabel() for a in axes] == [
        "student: loss",
        "student alone: loss",
        "student: accuracy (%)",
        "student alone: accuracy (%)",
    ]
    assert _lines(axes[1]) == {"loss": FALL}
    assert _lines(axes[2]) == {"student": [20.0, 40.0, 60.0], "teacher": [20.0, 40.0, 60.0]}
    assert axes[2].get_ylim() == axes[3].get_ylim()
    assert {a.get_xlim() for a in axes} == {(-0.04, 2.04)}


def test_validations_are_points_and_the_kept_one_a_line(axes: list[Any]) -> None:
    lines = _lines(axes[3])
    assert lines["validation, 100 tasks"] == [10.0, 50.0, 50.0]
    points = next(x for x in axes[3].lines if x.get_label() == "validation, 100 tasks")
    assert points.get_linestyle() == "None"
    (kept,) = (x for x in axes[3].lines if x.get_label().startswith("kept"))
    assert kept.get_label() == "kept: 50.0 %, step 1"  # the first of equal ones
    assert list(kept.get_xdata()) == [1, 1]


def test_chance_of_training_and_of_validation_are_marked(axes: list[Any]) -> None:
    assert [t.get_text() for t in axes[2].texts] == ["chance 1.56 %", "chance, validation 20 %"]
    assert axes[2].get_ylim()[0] < 1.56


def test_one_chance_has_one_line(tmp_path: Path, drawn: list[Any]) -> None:
    path = write_metrics(tmp_path / "m.jsonl", {"pretrain": {"teacher/accuracy": RISE}})
    for scale in (StageScale(0.1, 0.1), StageScale(0.1)):
        learning_curves(path, tmp_path / "c.png", scales={"pretrain": scale})
    for figure in drawn:
        shown = [a for a in figure.axes if a.get_visible()]
        assert [[t.get_text() for t in a.texts] for a in shown] == [["chance 10 %"]]
        assert shown[0].get_ylabel() == "teacher: accuracy (%)"


@pytest.mark.slow
def test_decades_get_a_logarithmic_axis(tmp_path: Path, drawn: list[Any]) -> None:
    for last in (1.0, 0.05, 0.0):  # 0 has no place on it
        metrics = {"loss": [3.0, 2.0, last], "validate/mse": [3.0, 1.0, 0.02]}
        path = write_metrics(tmp_path / "m.jsonl", {"meta_train": metrics})
        scales = {"meta_train": StageScale(tasks=50, keeps_best=True)}
        learning_curves(path, tmp_path / "c.png", scales=scales)
    assert [f.axes[0].get_yscale() for f in drawn] == ["linear", "log", "linear"]
    errors = drawn[0].axes[1]
    assert (errors.get_yscale(), errors.get_ylabel()) == ("log", "student: squared error")
    assert "kept: 0.02, step 2" in _lines(errors)
    assert not errors.texts  # there is no chance of an error


def test_the_objective_knows_its_weights() -> None:
    assert KD(ce_weight=0.3, kd_weight=2.0).weight("loss/kd") == 2.0
    convex = KDConvex(kd_weight=0.9)
    assert (convex.weight("loss/ce"), convex.weight("loss/kd")) == pytest.approx((0.1, 0.9))
    assert Objective().weight("loss/ce") is None  # the loss itself


def test_no_metrics_no_curves(tmp_path: Path) -> None:
    assert learning_curves(tmp_path / "none.jsonl", tmp_path / "x.png") is None
    assert not (tmp_path / "x.png").exists()


def test_a_diverged_loss_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"stage": "a", "step": 1, "time": 0, "metrics": {"loss": null, "b": 2}}\n')
    assert read_series(path) == {"a": {"b": [(1, 2.0)]}}


def test_running_mean_by_hand() -> None:
    assert running_mean([1, 2, 3, 4, 5], 3) == [1, 1.5, 2, 3, 4]
