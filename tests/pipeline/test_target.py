"""What the stage of fine-tuning is told of the settings."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import metakd
from metakd.config.compose import compose
from metakd.pipeline import target
from metakd.pipeline.prepare import prepare
from metakd.stages.fine_tune import Transfer
from metakd.stages.recorder import Recorder


def test_it_is_told_what_is_kept_of_the_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, Any] = {}
    monkeypatch.setattr(target, "fine_tune", lambda *_, **given: told.update(given))
    words = ["l2sp=0.25", "freeze_backbone=false", "unfreeze_every=3", "depth_decay=0.5"]
    composed = compose(["finetune=default", "distill=none", *(f"finetune.{w}" for w in words)])
    prepared = prepare(composed)
    student: Any = SimpleNamespace(algorithm=prepared.algorithm(prepared.student))
    target.fine_tune_student(prepared, Recorder(), student, None)
    assert told["how"] == Transfer(l2sp=0.25, unfreeze_every=3, depth_decay=0.5)


def test_what_changes_nothing_is_said() -> None:
    words = ["freeze_backbone=true", "unfreeze_every=3", "depth_decay=0.5"]
    composed = compose(["finetune=default", *(f"finetune.{w}" for w in words)])
    for name in ("unfreeze_every", "depth_decay"):
        line = f"finetune.{name} changes nothing: the head alone is trained"
        assert line in composed.warnings


@pytest.mark.parametrize(("mode", "said"), [("feedback", True), ("prototype", False)])
def test_a_teacher_that_has_moved_since_is_said_to_be_the_old_one(
    mode: str, said: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = "dataset.images_per_class=6 dataset.image_size=16 task.queries=3 task.train_queries=3"
    tiny += " evaluate.shots=[] evaluate.tasks=2 evaluate.transductive=false student.width=4"
    tiny += " teacher=conv4 teacher.width=4 pretrain.epochs=1 warmstart=none task.meta_batch=1"
    tiny += " meta_train.iterations=1 meta_train.validate_tasks=2 student_alone=false tracker=none"
    words = ["distill=kd", f"distill.teacher_mode={mode}", "finetune=default", "finetune.epochs=1"]
    words += ["finetune.distill=true", f"hydra.run.dir={tmp_path}/run"]
    metakd.train(*tiny.split(), *words, quiet=False)
    captured = "".join(capsys.readouterr())
    assert ("the teacher is the one before meta-training" in captured) == said


def test_tasks_of_an_evaluation_are_those_of_a_run_with_a_target_of_all_classes(
    tmp_path: Path,
) -> None:
    """Images of the target's test are left out of meta-validation then, as they were."""
    words = [
        "dataset.image_size=16",
        "dataset.images_per_class=8",
        "task.queries=3",
        "student.width=4",
    ]
    words += ["task.train_queries=3", "meta_train.iterations=0", "warmstart=none", "distill=none"]
    words += ["algorithm=protonet", "finetune=default", "finetune.target=all", "finetune.epochs=0"]
    words += ["evaluate.part=validate", "evaluate.tasks=8", "evaluate.shots=[]", "tracker=none"]
    found = metakd.train(*words, f"hydra.run.dir={tmp_path}/run", quiet=True)
    again = metakd.evaluate(tmp_path / "run")
    assert again["student"]["fewshot_all"] == found["student"]["fewshot_all"]
    assert again["student"]["calibration"] == found["student"]["calibration"]
