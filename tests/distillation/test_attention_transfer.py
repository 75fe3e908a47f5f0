"""Attention transfer: values worked by hand, pairs of stages, and runs in which it acts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

import metakd
from metakd.distillation.attention_transfer import (
    AttentionTransfer,
    attention_loss,
    attention_map,
)
from metakd.distillation.objective import Answer, FeatureShapes
from metakd.distillation.stage_loss import StagePairs
from metakd.errors import UserError
from metakd.models.network import Prediction
from metakd.registry import build

ONE = StagePairs(["a"], ["b"])


def _maps(*rows: list[list[float]]) -> Tensor:
    return torch.tensor([list(rows)], dtype=torch.float64)


def test_an_attention_map_by_hand() -> None:
    # Mean squares over two channels: (9 + 1) / 2 = 5, 0, 0, 12 (length 13).
    features = _maps([[3.0, 0.0], [0.0, 24.0**0.5]], [[-1.0, 0.0], [0.0, 0.0]])
    expected = torch.tensor([[5.0, 0.0, 0.0, 12.0]], dtype=torch.float64) / 13
    torch.testing.assert_close(attention_map(features, (2, 2)), expected)


def test_the_loss_by_hand() -> None:
    student = _maps([[3.0**0.5, 2.0]])  # squares 3, 4: map 0.6, 0.8
    teacher = _maps([[2.0, 3.0**0.5]])  # map 0.8, 0.6
    torch.testing.assert_close(float(attention_loss(student, teacher)), 0.04)
    assert float(attention_loss(student, 5 * student)) < 1e-12


def test_the_larger_map_is_averaged_to_the_smaller_one() -> None:
    torch.manual_seed(0)
    student = torch.rand(3, 2, 4, 4, dtype=torch.float64)
    teacher = torch.rand(3, 5, 2, 2, dtype=torch.float64)
    energy = student.square().mean(1)
    pooled = torch.stack(
        [
            energy[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean((1, 2))
            for i in (0, 1)
            for j in (0, 1)
        ],
        dim=1,
    )
    ours = pooled / pooled.norm(dim=1, keepdim=True)
    theirs = teacher.square().mean(1).flatten(1)
    theirs = theirs / theirs.norm(dim=1, keepdim=True)
    expected = (ours - theirs).square().mean()
    torch.testing.assert_close(attention_loss(student, teacher), expected)
    torch.testing.assert_close(attention_loss(teacher, student), expected)
    # One more leading dimension, of tasks, is a mean over them.
    tasks = attention_loss(student[None], teacher[None])
    torch.testing.assert_close(tasks, expected)


def test_terms_and_weights() -> None:
    student = Prediction(torch.zeros(1, 2), None, {"a": _maps([[3.0**0.5, 2.0]])})
    answer = Answer(torch.tensor([[1.0, 0.0]]), features={"b": _maps([[2.0, 3.0**0.5]])})
    terms = AttentionTransfer(ce_weight=0.0, attention_weight=10.0, pairs=ONE)(
        student, torch.tensor([0]), answer
    )
    assert set(terms) == {"loss", "loss/attention"}
    named = AttentionTransfer(pairs=StagePairs(["a", "c"], ["b", "d"]))
    assert named.stages == ("a", "c")
    assert named.reads == {"b", "d"}
    assert float(terms["loss"]) == pytest.approx(0.4)
    off = AttentionTransfer(attention_weight=0.0, kd_weight=1.0, pairs=ONE)
    assert set(off(Prediction(torch.zeros(1, 2)), torch.tensor([0]), answer)) == {
        "loss",
        "loss/ce",
        "loss/kd",
    }
    assert off.reads == {"logits"}
    assert off.stages == ()


def test_it_is_twice_differentiable() -> None:
    student = torch.rand(2, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    teacher = torch.rand(2, 3, 2, 2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s: attention_loss(s, teacher), (student,))
    assert torch.autograd.gradgradcheck(lambda s: attention_loss(s, teacher), (student,))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ce_weight": 0.0, "attention_weight": 0.0}, "all weights"),
        ({"attention_weight": -1.0}, r"options\.attention_weight=-1"),
        ({"student_stages": ["stage1"]}, "1 student_stages and 2 teacher_stages"),
        ({"student_stages": [], "teacher_stages": []}, "in pairs"),
        (
            {
                "shapes": FeatureShapes(
                    {"stage2": (8, 4, 4), "stage3": (8, 2, 2)},
                    {"stage2": (8, 4, 4), "stage3": (64,)},
                )
            },
            r"teacher_stages: 'stage3' gives features of shape \[64\]",
        ),
    ],
    ids=str,
)
def test_unusable_settings(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(AttentionTransfer, settings=settings)


TINY = (
    "distill=attention_transfer",
    "dataset.images_per_class=4",
    "dataset.image_size=16",
    "pretrain.epochs=1",
    "teacher.width=4",
    "student.width=4",
    "task.queries=2",
    "task.train_queries=2",
    "task.meta_batch=1",
    "meta_train.iterations=2",
    "meta_train.validate_every=2",
    "meta_train.validate_tasks=2",
    "evaluate.tasks=2",
    "evaluate.shots=[]",
    "evaluate.steps=[]",
    "evaluate.transductive=false",
    "student_alone=false",
    "tracker=none",
    "device=cpu",
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "stages"),
    [
        (("algorithm=protonet",), {"warmstart", "meta_train"}),
        (("algorithm=maml", "algorithm.inner_steps=1", "dataset.augment=[affine]"), {"meta_train"}),
        (("algorithm=anil", "algorithm.inner_steps=1"), {"meta_train"}),
        (("algorithm=supervised", "dataset.augment=[affine]", "dataset.views=0"), {"meta_train"}),
    ],
    ids=lambda x: x[0] if isinstance(x, tuple) else "",
)
def test_it_acts_wherever_a_loss_can(
    words: tuple[str, ...], stages: set[str], tmp_path: Path
) -> None:
    warm = "warmstart.epochs=1" if "warmstart" in stages else "warmstart=none"
    metakd.train(*TINY, *words, warm, f"hydra.run.dir={tmp_path / 'run'}")
    text = (tmp_path / "run" / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    taught = [line for line in lines if "loss/attention" in line["metrics"]]
    seen = {line["stage"]: line["metrics"]["loss/attention"] for line in taught}
    assert set(seen) == stages
    assert all(value > 0 for value in seen.values())


@pytest.mark.slow
def test_a_stage_that_a_network_lacks_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the teacher has no stage 'layer9'; its stages: stage1"):
        metakd.train(
            *TINY,
            "distill.options.teacher_stages=[stage2,layer9]",
            f"hydra.run.dir={tmp_path / 'run'}",
        )
