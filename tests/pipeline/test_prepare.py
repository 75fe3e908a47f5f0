"""What is decided before a run: seeds, refusals, warnings, what a teacher may have seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import metakd
from metakd.config.compose import compose
from metakd.data.images import ImageData
from metakd.errors import UserError
from metakd.pipeline.learners import get_teacher
from metakd.pipeline.measure import curve_steps, evaluation_stage
from metakd.pipeline.origin import provenance_of
from metakd.pipeline.prepare import prepare
from metakd.pipeline.prepared import Prepared
from metakd.stages.evaluate import evaluation_tasks
from metakd.stages.recorder import Recorder
from metakd.task_spec import TaskSpec

TWINS = ("teacher=conv4", "student=conv4", "teacher.width=8", "student.width=8", "tracker=none")


def prepared(*overrides: str) -> Prepared:
    return prepare(compose([*TWINS, *overrides]))


def first_weights(network: torch.nn.Module) -> torch.Tensor:
    return next(network.parameters()).detach()


def test_teacher_and_student_never_begin_alike() -> None:
    for seeds in ([], ["seed=3"], ["seed=3", "teacher.seed=3"], ["student.seed=5"]):
        both = prepared(*seeds)
        assert both.teacher is not None
        assert not torch.equal(first_weights(both.teacher.backbone), first_weights(both.student))


def test_seeds_decide_the_initial_weights() -> None:
    assert torch.equal(first_weights(prepared().student), first_weights(prepared().student))
    one, two = prepared("seed=1"), prepared("seed=2")
    assert not torch.equal(first_weights(one.student), first_weights(two.student))
    assert one.teacher is not None
    assert two.teacher is not None
    assert torch.equal(first_weights(one.teacher), first_weights(two.teacher))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["algorithm=maml", "algorithm.options.execution=bogus"], "execution"),
        (["distill.ce_weight=0", "distill.embedding_weight=0", "distill.similarity_weight=0"], "0"),
        (["finetune=default", "finetune.shots=500"], "shots"),
        (["finetune=default", "finetune.distill=true", "finetune.shots=1", "distill=kd"], "shots"),
        (["dataset=mini_imagenet", "student=torchvision", "student.pretrained=true"], "test class"),
        (["teacher.checkpoint="], "checkpoint"),
    ],
    ids=lambda x: "-".join(x)[:50] if isinstance(x, list) else "",
)
def test_refused_before_anything_is_made(overrides: list[str], words: str) -> None:
    kept = [t for t in TWINS if not any(t.split("=")[0] == o.split("=")[0] for o in overrides)]
    if any(o.startswith("student=") for o in overrides):
        kept = [t for t in kept if not t.startswith("student")]
    with pytest.raises(UserError, match=words):
        prepare(metakd.compose(*kept, *overrides))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["algorithm=reptile", "meta_train.optimizer=adam"], "plain_sgd"),
        (["algorithm=supervised", "task.meta_batch=2"], "task.meta_batch changes nothing"),
        (["meta_train.batch_size=7"], "meta_train.batch_size changes nothing"),
        (["evaluate.steps=[1]"], "evaluate.steps changes nothing"),
        (["dataset.views=3"], "dataset.views changes nothing"),
        (["algorithm.inner_lr=0.5"], "algorithm.inner_lr"),
    ],
    ids=lambda x: "-".join(x) if isinstance(x, list) else "",
)
def test_what_does_nothing_is_said(overrides: list[str], words: str) -> None:
    assert any(words in line for line in prepared(*overrides).warnings)
    assert not any(words in line for line in prepared().warnings)


def test_the_default_run_has_no_warnings() -> None:
    assert prepare(compose(["tracker=none"])).warnings == []


def test_a_teacher_that_saw_the_target_s_test_images_is_another_one(tmp_path: Path) -> None:
    settings = ("pretrain.epochs=1", f"cache_root={tmp_path}", "pretrain.batch_size=512")
    settings += ("dataset.image_size=16", "dataset.images_per_class=6", "task.queries=1")
    settings += ("task.train_queries=2",)

    def teachers(*overrides: str) -> int:
        get_teacher(prepared(*settings, *overrides), Recorder())
        files = [p for p in (tmp_path / "teachers").rglob("*") if p.is_file()]
        return len([p for p in files if p.suffix != ".lock"])

    assert teachers() == 1
    assert teachers("finetune=default", "finetune.target=novel") == 1
    assert teachers("finetune=default", "finetune.target=all") == 2


def test_selection_and_evaluating_use_other_validation_tasks() -> None:
    assert evaluation_stage("test") == "evaluate"
    data = prepared().data
    assert isinstance(data, ImageData)

    def drawn(stage: str) -> Any:
        spec = TaskSpec(ways=5, shots=1, queries=5)
        return next(evaluation_tasks(data, "validate", spec, tasks=20, seed=1, stage=stage)).classes

    assert torch.equal(drawn("evaluate"), drawn("evaluate"))
    assert not torch.equal(drawn("evaluate"), drawn(evaluation_stage("validate")))


def test_curve_steps() -> None:
    assert curve_steps(None, 10) == [0, 1, 2, 3, 5]
    assert curve_steps(None, 50) == [0, 1, 2, 3, 5, 10, 20]
    assert curve_steps([0, 4, 10], 10) == [0, 4]
    assert curve_steps([1], None) == []


def test_what_is_doubtful_about_pictures_is_warned_of_each_time_and_recorded(
    tmp_path: Path,
) -> None:
    for c in range(10):
        (tmp_path / "mine" / str(c)).mkdir(parents=True)
        for i in range(3):
            noise = np.random.default_rng(10 * c + i).integers(0, 256, (4, 4, 3), np.uint8)
            Image.fromarray(noise).save(tmp_path / "mine" / str(c) / f"{i}.png")
    (tmp_path / "mine" / "3" / "0.png").write_bytes(b"no picture")
    settings = (
        *("dataset=image_folder", f"dataset.folder={tmp_path / 'mine'}", "dataset.image_size=16"),
        *("dataset.augment=[]", "dataset.views=1", "evaluate.shots=[]", f"cache_root={tmp_path}"),
        *("task.ways=2", "task.train_ways=2", "task.train_queries=1", "task.queries=1"),
    )
    with pytest.raises(UserError, match=r"3/0.png cannot be read.*unreadable=skip"):
        prepared(*settings)
    for _ in range(2):
        skipped = prepared(*settings, "dataset.options.unreadable=skip")
        lines = [line for line in skipped.warnings if "left out" in line]
        assert len(lines) == 1
        assert "1 image was left out" in lines[0]
        assert provenance_of(skipped)["data_notes"] == lines
    assert provenance_of(prepared())["data_notes"] == []


def test_the_student_does_not_begin_as_one_of_several_teachers() -> None:
    words = ["student=conv4", "student.width=8", "teacher.width=8", "teacher.seeds=[0,1]"]
    for seed in (0, 1):
        prepared = prepare(compose([*words, f"seed={seed}"]))
        assert prepared.teacher is not None
        start = prepared.student.state_dict()["blocks.0.conv.weight"]
        weights = prepared.teacher.state_dict()
        members = [v for n, v in weights.items() if n.endswith("blocks.0.conv.weight")]
        assert len(members) == 2
        assert not any(torch.equal(start, member) for member in members)


def test_a_temperature_of_no_soft_targets_is_named() -> None:
    def named(*overrides: str) -> bool:
        found = prepared("distill.temperature=9", *overrides).warnings
        return any(line.startswith("distill.temperature changes nothing: ") for line in found)

    assert named()
    assert not named("distill.kd_weight=1")
    assert not named("distill=kd")
