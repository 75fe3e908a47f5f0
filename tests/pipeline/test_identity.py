"""The same teacher, the same undistilled twin are known again; no other is taken for them."""

from __future__ import annotations

from functools import cache

import pytest

import metakd
from metakd.pipeline.identity import key_of_student_alone, key_of_teacher
from metakd.pipeline.prepare import prepare
from metakd.pipeline.prepared import Prepared

TINY = (
    "dataset.images_per_class=20",
    "dataset.image_size=16",
    "teacher.width=8",
    "student.width=8",
    "task.meta_batch=2",
    "distill=embedding",
    "tracker=none",
)


@cache
def prepared(*words: str) -> Prepared:
    return prepare(metakd.compose(*TINY, *words))


def teacher(*words: str) -> str:
    run = prepared(*words)
    assert run.teacher is not None
    return key_of_teacher(run, run.teacher, run.teacher.backbone)


def twin(*words: str) -> str:
    return key_of_student_alone(prepared(*words), 1)


@pytest.mark.parametrize(
    "words",
    [
        ("teacher.seed=0",),
        ("teacher.seed=null",),
        ("teacher.width=null", "teacher.widths=[8,8,8,8]"),
        ("teacher.strided=false", "teacher.norm=batch"),
        ("teacher.dropout=0.3",),  # conv4 has none
        ("pretrain.halve_every=7",),  # the schedule is another one
        ("seed=5",),
        ("distill=kd", "student.width=16", "algorithm=maml"),
        ("pretrain.skip_nonfinite=0", "pretrain.weight_decay=0.0001"),
    ],
    ids=" ".join,
)
def test_the_same_teacher(words: tuple[str, ...]) -> None:
    assert teacher(*words) == teacher()


@pytest.mark.parametrize(
    "word",
    [
        "teacher.seed=1",
        "teacher.width=16",
        "teacher.strided=true",
        "teacher.norm=group",
        "teacher.dropblock=0.1",
        "teacher.options.average=true",
        "pretrain.epochs=1",
        "pretrain.batch_size=1024",
        "pretrain.lr=0.1",
        "pretrain.ema=0.9",
        "pretrain.rotation_weight=1",
        "pretrain.mixup=1",
        "pretrain.manifold_mixup=1",
        "dataset.augment=[flip]",
        "dataset.images_per_class=21",
        "finetune=default finetune.target=all",
        "deterministic=true",
    ],
)
def test_another_teacher(word: str) -> None:
    assert teacher(*word.split()) != teacher()


def test_the_width_of_the_architecture_is_its_width() -> None:
    assert teacher("teacher.width=null") == teacher("teacher.width=64")


@pytest.mark.parametrize(
    "words",
    [
        ("distill=kd", "distill.kd_weight=0.3"),
        ("distill=none",),
        ("teacher=resnet8", "teacher.width=8"),
        ("pretrain.epochs=1", "pretrain.batch_size=1024", "pretrain.cache=false"),
        ("evaluate.tasks=7", "evaluate.shots=[1]", "evaluate.part=validate"),
        ("task.train_shots=1", "task.train_ways=5", "task.train_queries=5"),
        ("student.seed=0",),
        ("meta_train.halve_every=3",),
        ("algorithm.inner_lr=0.5",),  # protonet does not adapt
        ("name=other", "tags=[a]", "checkpoint_steps=4"),
    ],
    ids=" ".join,
)
def test_the_same_twin(words: tuple[str, ...]) -> None:
    assert twin(*words) == twin()


@pytest.mark.parametrize(
    "word",
    [
        "seed=1",
        "student.width=16",
        "student.norm=group",
        "student.dropblock=0.1",
        "student.seed=3",
        "algorithm=maml",
        "algorithm.distance=cosine",
        "task.meta_batch=3",
        "task.shots=2",
        "task.train_shots=2",
        "task.queries=14",
        "task.train_tasks=9",
        "task.sampling=superclass",
        "warmstart.epochs=2",
        "warmstart=none",
        "meta_train.lr=0.1",
        "meta_train.ema=0.9",
        "meta_train.rotation_weight=1",
        "warmstart.rotation_weight=1",
        "warmstart.mixup=1",
        "warmstart.manifold_mixup=1",
        "meta_train.iterations=9",
        "meta_train.validate_every=9",
        "meta_train.validate_tasks=9",
        "evaluate.seed=1",
        "dataset.augment=[flip]",
        "dataset.images_per_class=21",
        "finetune=default finetune.target=all",
        "deterministic=true",
    ],
)
def test_another_twin(word: str) -> None:
    assert twin(*word.split()) != twin()


def test_what_computes_decides_the_twin(monkeypatch: pytest.MonkeyPatch) -> None:
    run, before = prepared(), twin()
    assert key_of_student_alone(run, 2) != before
    monkeypatch.setattr("torch.get_num_threads", lambda: 97)
    assert key_of_student_alone(run, 1) != before
    monkeypatch.undo()
    assert key_of_student_alone(run, 1) == before
    monkeypatch.setattr("metakd.pipeline.identity.CODE", "changed")
    assert key_of_student_alone(run, 1) != before
