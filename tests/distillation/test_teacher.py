"""The frozen teacher: nothing changes it, and its answers are those of its network."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from metakd.data.tasks import ExampleBatch, TaskBatch
from metakd.distillation.divergences import unit
from metakd.distillation.teacher import FrozenTeacher
from metakd.distillation.teacher_modes import (
    head_logits,
    prototype_logits,
    prototype_logits_on_support,
    ridge_logits,
    ridge_logits_on_support,
)
from metakd.errors import UserError


def _embed(teacher: FrozenTeacher, images: torch.Tensor) -> torch.Tensor:
    """Embed images of tasks one task at a time, past every table."""
    return torch.stack([teacher.embed(task) for task in images])


@pytest.mark.parametrize("views", [0, 1, 3], ids=["fresh", "clean", "fixed"])
@pytest.mark.parametrize("mode", ["prototype", "linear", "head"])
def test_answers_are_those_of_the_network_on_the_very_images(
    fake_data: Any, network: Any, mode: str, views: int
) -> None:
    data = fake_data(augment=("flip",), views=views)
    teacher = FrozenTeacher(network, data, mode=mode)
    tasks = data.tasks("train")
    answers = teacher.answers(tasks, "train", "both")
    support, query = _embed(teacher, tasks.support), _embed(teacher, tasks.query)
    known, asked = unit(support - teacher.mean), unit(query - teacher.mean)
    labels = tasks.support_targets
    if mode == "prototype":
        on_query = prototype_logits(known, labels, asked, 3, 10.0)
        on_support = prototype_logits_on_support(known, labels, 3, 10.0)
    elif mode == "linear":
        on_query = ridge_logits(known, labels, asked, 3, 10.0)
        on_support = ridge_logits_on_support(known, labels, 3, 10.0)
    else:
        head = network.head
        on_query = head_logits(query, head.weight, head.bias, tasks.classes)
        on_support = head_logits(support, head.weight, head.bias, tasks.classes)
    assert answers.query is not None
    assert answers.support is not None
    torch.testing.assert_close(answers.query.logits, on_query, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(answers.support.logits, on_support, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(answers.query.embeddings, query)
    torch.testing.assert_close(answers.support.embeddings, support)


def test_only_what_is_needed_where_it_acts(fake_data: Any, network: Any) -> None:
    teacher = FrozenTeacher(network, fake_data())
    tasks = fake_data().tasks("train")
    answers = teacher.answers(tasks, "train", "query", ["embeddings"])
    assert answers.support is None
    assert answers.query is not None
    assert answers.query.logits is None
    answers = teacher.answers(tasks, "train", "support", ["logits"])
    assert answers.query is None
    assert answers.support is not None
    assert answers.support.embeddings is None
    with pytest.raises(ValueError, match="'outer' is not one of"):
        teacher.answers(tasks, "train", "outer")


def test_nothing_done_to_the_original_changes_it(fake_data: Any, network: Any) -> None:
    data = fake_data()
    teacher = FrozenTeacher(network, data)
    tasks = data.tasks("test")
    before = FrozenTeacher(network, data).predict(tasks, "test")
    assert network.training, "the original is left as it was"
    assert all(p.requires_grad for p in network.parameters())
    network.train()
    with torch.no_grad():
        for p in network.parameters():
            p.add_(1.0)
    torch.testing.assert_close(teacher.predict(tasks, "test"), before)


def test_answers_carry_no_gradient_but_can_stand_in_a_graph(fake_data: Any, network: Any) -> None:
    data = fake_data(augment=("flip",), views=0)
    teacher = FrozenTeacher(network, data)
    answer = teacher.answers(data.tasks("train")).query
    assert answer is not None
    assert answer.logits is not None
    assert answer.embeddings is not None
    assert not answer.logits.requires_grad
    weight = torch.ones((), requires_grad=True)
    (weight * answer.embeddings.sum() + weight * answer.logits.sum()).backward()
    assert weight.grad is not None


def test_whole_batches(fake_data: Any, network: Any) -> None:
    data = fake_data(augment=("flip",), views=3)
    teacher = FrozenTeacher(network, data)
    index, view = torch.tensor([5, 2, 20]), torch.tensor([0, 2, 1])
    images = data.examples("train", index, view)
    batch = ExampleBatch(images, data.split("train").labels[index], index, view)
    answer = teacher.answer_batch(batch)
    prediction = network.eval().requires_grad_(False)
    with torch.no_grad():
        expected = prediction(images)
    torch.testing.assert_close(answer.embeddings, expected.embeddings)
    torch.testing.assert_close(answer.logits, expected.logits)
    assert teacher.answer_batch(batch, ["embeddings"]).logits is None


def test_head_answers_on_meta_train_alone_and_is_evaluated_as_prototype(
    fake_data: Any, network: Any
) -> None:
    data = fake_data()
    head, prototype = (FrozenTeacher(network, data, mode=m) for m in ("head", "prototype"))
    tasks = data.tasks("test")
    with pytest.raises(ValueError, match="no outputs for the classes of 'test'"):
        head.answers(tasks, "test")
    torch.testing.assert_close(head.predict(tasks, "test"), prototype.predict(tasks, "test"))
    nameless = dataclasses.replace(data.tasks("train"), classes=None)
    with pytest.raises(ValueError, match="without classes"):
        head.answers(nameless, "train")


def test_one_shot_logits_on_the_support_set_are_refused(fake_data: Any, network: Any) -> None:
    data = fake_data()
    tasks = data.tasks("train", shots=1)
    for mode in ("prototype", "linear"):
        with pytest.raises(ValueError, match="leave-one-out"):
            FrozenTeacher(network, data, mode=mode).answers(tasks, "train", "support")
    embeddings = FrozenTeacher(network, data).answers(tasks, "train", "support", ["embeddings"])
    assert embeddings.support is not None


def test_an_unknown_mode_is_refused(fake_data: Any, network: Any) -> None:
    with pytest.raises(UserError, match="Did you mean 'prototype'"):
        FrozenTeacher(network, fake_data(), mode="prototypes")


class _Stream:
    """Tasks whose query labels are drawn from the teacher's own predictions at a known scale."""

    def __init__(self, teacher: FrozenTeacher, data: Any, scale: float) -> None:
        self._teacher, self._data, self._scale = teacher, data, scale

    def batch(self, step: int) -> TaskBatch:
        tasks: TaskBatch = self._data.tasks("validate", seed=step)
        teacher = self._teacher
        teacher.scale, before = self._scale, teacher.scale
        probabilities = teacher.predict(tasks, "validate").softmax(-1)
        teacher.scale = before
        draw = torch.Generator().manual_seed(step)
        labels = torch.multinomial(probabilities.flatten(0, 1), 1, generator=draw)
        return dataclasses.replace(tasks, query_targets=labels.view(tasks.query_targets.shape))


@pytest.mark.parametrize(("mode", "scale"), [("prototype", 2.0), ("linear", 5.0)])
def test_calibration_recovers_a_known_scale(
    fake_data: Any, network: Any, mode: str, scale: float
) -> None:
    data = fake_data()
    teacher = FrozenTeacher(network, data, mode=mode)
    assert teacher.calibrate(_Stream(teacher, data, scale), 200) == pytest.approx(scale, rel=0.1)
    assert teacher.scale == pytest.approx(scale, rel=0.1)
    with pytest.raises(ValueError, match="one batch of tasks or more"):
        teacher.calibrate(_Stream(teacher, data, scale), 0)


def test_float32_inside_autocast(fake_data: Any, network: Any) -> None:
    data = fake_data()
    teacher = FrozenTeacher(network, data)
    tasks = data.tasks("train")
    plain = teacher.answers(tasks).query
    with torch.autocast("cpu", torch.bfloat16):
        inside = teacher.answers(tasks).query
    assert plain is not None
    assert inside is not None
    torch.testing.assert_close(inside.logits, plain.logits)
