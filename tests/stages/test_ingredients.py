"""What stages add to their updates: a head that tells quarter turns."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

import metakd
from metakd.algorithms.protonet import ProtoNet
from metakd.algorithms.supervised import Supervised
from metakd.data.counter_random import stream_key
from metakd.data.quarter_turns import quarter_turns, turned
from metakd.data.tasks import ExampleBatch, TaskBatch
from metakd.distillation.kd import KD
from metakd.distillation.objective import Answer, Objective, TaskAnswers
from metakd.errors import UserError
from metakd.pipeline.prepare import prepare
from metakd.runs.checkpoints import load_weights
from metakd.runs.folder import open_run
from metakd.stages.ingredients import Enriched, Ingredients, enriched


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(before)


class Backbone(nn.Module):
    """One convolution and what is left of it: turned pictures look otherwise."""

    embedding_size = 18

    def __init__(self) -> None:
        super().__init__()
        self.stage = nn.Conv2d(1, 2, 3, stride=2)

    def forward(self, pictures: Tensor) -> Tensor:
        return torch.tanh(self.stage(pictures)).flatten(1)


def batch(count: int = 6) -> ExampleBatch:
    return ExampleBatch(torch.randn(count, 1, 8, 8), torch.arange(count) % 4, torch.arange(count))


def added_to(learner: Any, **added: float) -> Enriched:
    found = enriched(learner, Ingredients(**added), seed=3, stage="warmstart")
    assert isinstance(found, Enriched)
    found.begin(5, 10)
    return found.train()


def gradients(module: nn.Module) -> dict[str, Tensor]:
    return {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}


def same_gradients(learner: nn.Module, loss: Tensor, reference: nn.Module) -> None:
    loss.backward()
    found, expected = gradients(learner), gradients(reference)
    assert found
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name])


# --- turns


def test_a_quarter_turn_is_anticlockwise() -> None:
    picture = torch.tensor([[[1, 2], [3, 4]]]).expand(4, 1, 2, 2)
    by_hand = [[[1, 2], [3, 4]], [[2, 4], [1, 3]], [[4, 3], [2, 1]], [[3, 1], [4, 2]]]
    assert turned(picture, torch.arange(4))[:, 0].tolist() == by_hand
    with pytest.raises(ValueError, match="not square"):
        turned(torch.zeros(1, 1, 2, 3), torch.zeros(1, dtype=torch.int64))


def test_turns_are_even_and_a_function_of_key_and_picture() -> None:
    turns = quarter_turns(7, torch.arange(4000))
    assert turns.bincount(minlength=4).tolist() == pytest.approx([1000] * 4, abs=100)
    assert torch.equal(quarter_turns(7, torch.arange(3000, 3010)), turns[3000:3010])
    assert not torch.equal(quarter_turns(8, torch.arange(4000)), turns)


# --- the head


def turns_at(step: int, index: Tensor) -> Tensor:
    return quarter_turns(stream_key(3, "warmstart", "rotation", step), index)


def test_the_loss_on_a_whole_batch() -> None:
    learner, examples = added_to(Supervised(Backbone(), 4), rotation_weight=0.7), batch()
    objective, answer = KD(18, 7, kd_weight=0.5, temperature=2.0), Answer(torch.randn(6, 4))
    reference = copy.deepcopy(learner)
    terms = learner.accumulate(examples, objective, answer)

    turns = turns_at(5, examples.index)
    upright = reference.learner.network(examples.examples)  # type: ignore[operator, union-attr]
    other = reference.learner.network(turned(examples.examples, turns))  # type: ignore[operator, union-attr]
    ce = F.cross_entropy(upright.logits, examples.labels)
    ce_turned = F.cross_entropy(other.logits, examples.labels)
    taught = objective(upright, examples.labels, answer)
    rotation = F.cross_entropy(reference.rotation(other.embeddings), turns)
    loss = taught["loss"] - ce + (ce + ce_turned) / 2 + 0.7 * rotation
    torch.testing.assert_close(terms["loss"], loss.detach())
    torch.testing.assert_close(terms["loss/kd"], taught["loss/kd"].detach())
    torch.testing.assert_close(terms["loss/rotation"], rotation.detach())
    same_gradients(learner, loss, reference)
    learner.begin(6, 10)
    assert learner.accumulate(examples, objective, answer)["loss/rotation"] != rotation


def test_the_loss_on_episodes_turns_query_sets() -> None:
    learner = added_to(ProtoNet(Backbone()), rotation_weight=2.0)
    tasks = TaskBatch(
        torch.randn(2, 6, 1, 8, 8),
        torch.arange(3).repeat_interleave(2).repeat(2, 1),
        torch.randn(2, 9, 1, 8, 8),
        torch.arange(3).repeat_interleave(3).repeat(2, 1),
        *(3, 2, 3),
        query_index=torch.arange(18).view(2, 9),
    )
    objective, answers = KD(18, 7), TaskAnswers(query=Answer(torch.randn(2, 9, 3)))
    reference = copy.deepcopy(learner)
    terms = learner.accumulate(tasks, objective, answers)

    assert tasks.query_index is not None
    turns = turns_at(5, tasks.query_index)
    shown = (tasks.support, tasks.support_targets)
    upright = reference.learner(*shown, tasks.query, 3)
    other = reference.learner(*shown, turned(tasks.query, turns), 3)
    ce = objective.label_loss(upright.logits, tasks.query_targets)
    ce_turned = objective.label_loss(other.logits, tasks.query_targets)
    told = reference.rotation(other.embeddings)
    loss = objective(upright, tasks.query_targets, answers.query)["loss"] + (ce_turned - ce) / 2
    loss = loss + 2.0 * F.cross_entropy(told.flatten(0, 1), turns.flatten())
    torch.testing.assert_close(terms["loss"], loss.detach())
    same_gradients(learner, loss, reference)


def test_the_head_learns_to_tell_turns() -> None:
    learner, examples = added_to(Supervised(Backbone(), 4), rotation_weight=1.0), batch(8)
    optimizer = torch.optim.Adam(learner.parameters(), 0.03)
    for _ in range(60):
        optimizer.zero_grad()
        terms = learner.accumulate(examples, Objective(), None)
        optimizer.step()
    assert terms["student/rotation_accuracy"] == terms["student/accuracy"] == 1


def test_nothing_added_is_the_learner_itself() -> None:
    learner = Supervised(Backbone(), 4)
    assert enriched(learner, Ingredients(), seed=0, stage="warmstart") is learner


def test_the_heads_start_leaves_other_random_numbers_alone() -> None:
    before = torch.get_rng_state()
    one, two = (added_to(Supervised(Backbone(), 4), rotation_weight=1.0) for _ in range(2))
    torch.set_rng_state(before)
    Supervised(Backbone(), 4)
    after = torch.get_rng_state()
    torch.set_rng_state(before)
    added_to(Supervised(Backbone(), 4), rotation_weight=1.0)
    assert torch.equal(torch.get_rng_state(), after)
    assert torch.equal(one.rotation.weight, two.rotation.weight)
    assert 0 < one.rotation.weight.abs().max() <= 18**-0.5


# --- in a run

SHORT = (
    "dataset=image_folder",
    "dataset.image_size=16",
    "task.ways=2",
    "task.queries=2",
    "teacher.width=4",
    "student.width=4",
    "pretrain.epochs=1",
    "pretrain.cache=false",
    "meta_train.iterations=2",
    "meta_train.validate_tasks=2",
    "student_alone=false",
    "evaluate.tasks=2",
    "evaluate.shots=[]",
    "tracker=none",
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four meta-train classes of eight pictures, and three each to validate and test on."""
    folder, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for split, classes in (("train", 4), ("val", 3), ("test", 3)):
        for name in range(classes):
            (folder / split / f"{split}{name}").mkdir(parents=True)
            for i in range(8):
                pixels = random.integers(0, 256, (16, 16, 3), np.uint8)
                Image.fromarray(pixels).save(folder / split / f"{split}{name}" / f"{i}.png")
    return folder


def test_each_stage_has_a_head_that_no_network_keeps(tmp_path: Path, photos: Path) -> None:
    torch.set_default_dtype(torch.float32)
    metakd.train(
        *SHORT,
        *(f"{stage}.rotation_weight=1" for stage in ("pretrain", "warmstart", "meta_train")),
        f"dataset.folder={photos}",
        f"hydra.run.dir={tmp_path / 'run'}",
    )
    lines = open_run(tmp_path / "run").read_metrics()
    told = {line["stage"] for line in lines if "loss/rotation" in line["metrics"]}
    assert told == {"pretrain", "warmstart", "meta_train"}
    for network in ("teacher", "student"):
        weights = load_weights(tmp_path / "run" / "checkpoints", network)
        assert weights
        assert not [name for name in weights if "rotation" in name]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("dataset=sinusoid student=mlp algorithm=maml", "no pictures to turn"),
        ("algorithm=maml", "algorithm=maml adapts the network to each task"),
        ("dataset.rotations=true", "with dataset.rotations=true a turned picture is one of an"),
        ("distill=kd distill.teacher_mode=feedback", "a teacher that adapts or learns sees no"),
    ],
)
def test_what_has_no_place_for_a_head_is_refused(words: str, reason: str, photos: Path) -> None:
    torch.set_default_dtype(torch.float32)
    given = (*SHORT, f"dataset.folder={photos}") if "sinusoid" not in words else ()
    typed = (*given, "distill=none", *words.split(), "meta_train.rotation_weight=1")
    with pytest.raises(UserError, match=reason) as refused:
        prepare(metakd.compose(*typed))
    assert "meta_train.rotation_weight=1: " in str(refused.value)
    assert str(refused.value).endswith("type meta_train.rotation_weight=0")
