"""Teachers that adapt or learn, through whole runs on the embedded glyphs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import metakd
from metakd.errors import UserError
from metakd.pipeline.again import evaluate_run

SHORT = (
    "meta_train.iterations=2",
    "meta_train.validate_tasks=2",
    "pretrain.epochs=1",
    "warmstart.epochs=0",
    "task.meta_batch=2",
    "teacher=conv4_small",
    "teacher.width=8",
    "student.width=4",
    "evaluate.tasks=3",
    "evaluate.shots=[]",
    "evaluate.steps=[]",
    "algorithm.inner_steps=1",
    "algorithm.inner_steps_test=1",
    "evaluate.transductive=false",
    "tracker=none",
)

ADVERSARIAL = (
    "loss", "discriminator_accuracy", "agreement", "kl", "offset_norm",
    "discriminator_loss", "generator_loss", "offset_spread",
)  # fmt: skip


def run(folder: Path, *overrides: str) -> dict[str, Any]:
    return metakd.train(*SHORT, *overrides, f"hydra.run.dir={folder}", quiet=True)


def metrics(folder: Path, stage: str) -> set[str]:
    lines = [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]
    return {name for line in lines if line["stage"] == stage for name in line["metrics"]}


def same(a: dict[str, Any], b: dict[str, Any], name: str) -> None:
    """Whatever was measured of a model is the same to the last bit (costs are timed anew)."""
    assert {**a[name], "cost": 0, "validated": 0} == {**b[name], "cost": 0, "validated": 0}


@pytest.mark.parametrize(
    "words",
    [
        ("algorithm=adversarial", "distill=kd"),
        ("algorithm=adversarial", "distill=none", "pretrain=none"),
        ("algorithm=adversarial", "distill=kd", "algorithm.base=protonet",
         "algorithm.options.start=best", "algorithm.options.game_loss=wasserstein"),
        ("algorithm=fomaml", "distill=kd", "distill.teacher_mode=co_meta"),
        ("algorithm=protonet", "distill=kd_convex", "distill.teacher_mode=per_task",
         "distill.teacher_learns=false"),
        ("algorithm=ridge", "distill=kd", "distill.teacher_mode=feedback"),
        ("algorithm=supervised", "distill=kd", "distill.teacher_mode=feedback",
         "distill.hypergradient=unrolled"),
    ],
    ids=lambda w: " ".join(x.partition("=")[2] for x in w),
)  # fmt: skip
def test_a_whole_run_and_judging_it_again(words: tuple[str, ...], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    results = run(folder, *words)
    assert {"student", "student_alone", "teacher", "fidelity", "gains"} <= set(results)
    logged = metrics(folder, "meta_train")
    assert "teacher/accuracy" in logged
    if "algorithm=adversarial" in words:
        assert {f"adversarial/{n}" for n in ADVERSARIAL} <= logged
        assert not any("adversarial" in n for n in metrics(folder, "meta_train_alone"))
        assert (folder / "figures" / "adversarial_game.png").stat().st_size > 10_000
    again = evaluate_run(folder, quiet=True)
    for name in ("student", "student_alone", "teacher"):
        same(results, again, name)
    assert again["fidelity"] == results["fidelity"]
    assert again["gains"] == results["gains"]


def test_an_adapting_teacher_is_judged_as_it_adapts(tmp_path: Path) -> None:
    results = run(
        tmp_path / "run", "algorithm=protonet", "distill=kd", "distill.teacher_mode=co_meta",
        "student_alone=false", "distill.teacher_inner_steps=2",
    )  # fmt: skip
    assert results["teacher"]["fewshot"]["steps"] == 2
    assert "steps" not in results["student"]["fewshot"]


@pytest.mark.parametrize(
    "setting",
    ["distill.teacher_lr=0.1", "distill.teacher_inner_lr=0.5", "distill.teacher_inner_steps=3",
     "distill.teacher_first_order=false", "distill.teacher_ce_weight=0.1",
     "distill.teacher_kd_weight=5", "distill.direction=to_student", "distill.mutual=true"],
)  # fmt: skip
def test_settings_of_co_meta_act(setting: str, tmp_path: Path) -> None:
    """Each changes what the teacher becomes."""
    words = ("algorithm=fomaml", "distill=kd", "distill.teacher_mode=co_meta",
             "student_alone=false", "meta_train.lr=0.05", "algorithm.inner_lr=0.1")  # fmt: skip
    plain = run(tmp_path / "plain", *words)
    other = run(tmp_path / "other", *words, setting)
    states = [
        json.loads((Path(r["folder"]) / "run.json").read_text())["teacher"] for r in (plain, other)
    ]
    assert states[0] != states[1]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("algorithm=fomaml", "distill=embedding", "distill.teacher_mode=co_meta"), "distill=kd"),
        (("algorithm=fomaml", "distill=kd", "distill.teacher_mode=per_task",
          "distill.on=support", "task.train_shots=2"), "distill.on=query"),
        (("algorithm=reptile", "distill=kd", "distill.teacher_mode=co_meta"),
         "algorithm=reptile can use"),
        (("algorithm=imaml", "distill=kd", "distill.teacher_mode=co_meta"),
         "algorithm=imaml can use"),
        (("algorithm=supervised", "distill=kd", "distill.teacher_mode=co_meta"),
         "algorithm=supervised can use"),
        (("algorithm=protonet", "distill=kd", "distill.teacher_mode=feedback", "pretrain=none"),
         "needs a trained teacher"),
        (("algorithm=protonet", "distill=kd", "distill.teacher_mode=per_task", "pretrain=none",
          "distill.teacher_learns=false"), "needs a trained teacher"),
        (("algorithm=adversarial", "distill=kd", "distill.teacher_mode=prototype"),
         "algorithm=adversarial can use co_meta"),
        (("algorithm=protonet", "distill=kd", "distill.teacher_mode=co_meta",
          "task.train_ways=8"), "task.train_ways=5"),
        (("algorithm=adversarial", "algorithm.base=reptile"), "one of maml, fomaml"),
    ],
    ids=lambda w: w if isinstance(w, str) else " ".join(x.partition("=")[2] for x in w),
)  # fmt: skip
def test_refusals(words: tuple[str, ...], says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=says):
        run(tmp_path / "run", *words)
    assert not (tmp_path / "run").exists()


def test_settings_that_do_nothing_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metakd.train(
        *SHORT, "algorithm=protonet", "distill=kd", "student_alone=false", "distill.trial_lr=0.1",
        "distill.teacher_lr=0.1", f"hydra.run.dir={tmp_path / 'run'}",
    )  # fmt: skip
    said = "".join(capsys.readouterr())
    assert "distill.trial_lr changes nothing" in said
    assert "distill.teacher_lr changes nothing" in said
