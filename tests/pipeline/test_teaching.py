"""Teachers that adapt or learn, through whole runs on the embedded glyphs."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import metakd
from metakd.config.compose import compose
from metakd.errors import UserError
from metakd.pipeline import again as again_module
from metakd.pipeline import run as run_module
from metakd.pipeline.again import evaluate_run
from metakd.pipeline.learners import Taught, get_teacher, train_student
from metakd.pipeline.prepare import prepare
from metakd.pipeline.prepared import Prepared
from metakd.stages.recorder import Recorder

SHORT = (
    "dataset.images_per_class=4",
    "dataset.image_size=16",
    "task.queries=3",
    "task.train_queries=3",
    "meta_train.iterations=2",
    "meta_train.validate_tasks=2",
    "pretrain.epochs=1",
    "pretrain.batch_size=1024",
    "warmstart.epochs=0",
    "task.meta_batch=2",
    "teacher=conv4_small",
    "teacher.width=4",
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


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what takes most of a short run's time and is not looked at: costs."""
    for module in (run_module, again_module):
        monkeypatch.setattr(module, "cost_of", lambda *_: {})


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
@pytest.mark.usefixtures("quick")
def test_a_whole_run_and_evaluating_it_again(words: tuple[str, ...], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    results = run(folder, *words)
    assert {"student", "student_alone", "teacher", "fidelity", "gains"} <= set(results)
    logged = metrics(folder, "meta_train")
    assert "teacher/accuracy" in logged
    if "algorithm=adversarial" in words:
        assert {f"adversarial/{n}" for n in ADVERSARIAL} <= logged
        assert not any("adversarial" in n for n in metrics(folder, "meta_train_alone"))
        evaluated_from = "best" if "algorithm.options.start=best" in words else "mean"
        assert results["student"]["start"] == evaluated_from
    else:
        assert "start" not in results["student"]
    again = evaluate_run(folder, quiet=True)
    for name in ("student", "student_alone", "teacher"):
        same(results, again, name)
    assert again["fidelity"] == results["fidelity"]
    assert again["gains"] == results["gains"]


def test_the_game_is_drawn(
    tmp_path: Path, drawing: Callable[[], AbstractContextManager[None]]
) -> None:
    with drawing():
        run(tmp_path / "run", "algorithm=adversarial", "distill=kd", "student_alone=false")
    assert (tmp_path / "run" / "figures" / "adversarial_game.png").stat().st_size > 10_000


@pytest.mark.usefixtures("quick")
def test_an_adapting_teacher_is_evaluated_as_it_adapts(tmp_path: Path) -> None:
    results = run(
        tmp_path / "run", "algorithm=protonet", "distill=kd", "distill.teacher_mode=co_meta",
        "student_alone=false", "distill.teacher_inner_steps=2",
    )  # fmt: skip
    assert results["teacher"]["fewshot"]["steps"] == 2
    assert "steps" not in results["student"]["fewshot"]


@pytest.fixture(scope="module")
def co_meta() -> tuple[Prepared, Taught]:
    prepared = prepare(
        compose([
            *SHORT, "algorithm=fomaml", "distill=kd", "distill.teacher_mode=co_meta",
            "meta_train.lr=0.05", "algorithm.inner_lr=0.1",
        ])
    )  # fmt: skip
    taught = get_teacher(prepared, Recorder())
    assert taught is not None
    return prepared, taught


def becomes(co_meta: tuple[Prepared, Taught], **settings: Any) -> dict[str, torch.Tensor]:
    """Return what the teacher of a run with these settings of `distill` has become."""
    prepared, taught = co_meta
    config = copy.deepcopy(prepared.config)
    for name, value in settings.items():
        setattr(config.distill, name, value)
    changed = replace(taught)
    train_student(replace(prepared, config=config), Recorder(), changed)
    assert changed.learned is not None
    state: dict[str, torch.Tensor] = changed.learned.state_dict()
    return state


@pytest.mark.parametrize(
    "setting",
    [{"teacher_lr": 0.1}, {"teacher_inner_lr": 0.5}, {"teacher_inner_steps": 3},
     {"teacher_first_order": False}, {"teacher_ce_weight": 0.1}, {"teacher_kd_weight": 5.0},
     {"direction": "to_student"}, {"mutual": True}],
    ids=lambda s: "".join(s),
)  # fmt: skip
def test_settings_of_co_meta_act(setting: dict[str, Any], co_meta: tuple[Prepared, Taught]) -> None:
    """Each changes what the teacher becomes."""
    plain, again, other = becomes(co_meta), becomes(co_meta), becomes(co_meta, **setting)
    assert all(torch.equal(v, again[n]) for n, v in plain.items())
    assert any(not torch.equal(v, other[n]) for n, v in plain.items())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("algorithm=fomaml", "distill=embedding", "distill.teacher_mode=co_meta"), "distill=kd"),
        (("algorithm=fomaml", "distill=kd", "distill.teacher_mode=per_task",
          "distill.on=support", "task.train_shots=2", "task.train_queries=2"), "distill.on=query"),
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


@pytest.mark.usefixtures("quick")
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
