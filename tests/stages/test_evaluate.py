"""Few-shot evaluation: the same tasks whatever is measured, and figures that add up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from metakd.adaptation.algorithm import Algorithm
from metakd.algorithms.protonet import ProtoNet
from metakd.data.images import ImageData
from metakd.data.tasks import TaskBatch
from metakd.models.normalization import BatchNorm2d
from metakd.stages.evaluate import (
    EvaluationSetting,
    embed_split,
    embeds_alone,
    evaluate,
    evaluation_tasks,
)
from metakd.stages.precision import Precision
from metakd.task_spec import TaskSpec

FULL = Precision(None, "cpu")


class Cheat(Algorithm):
    """Knows the answers after two steps, says class 0 before; remembers the tasks."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[TaskBatch] = []

    def accumulate(self, batch: Any, objective: Any, answers: Any) -> dict[str, Tensor]:
        raise AssertionError("evaluation does not train")

    def predict(
        self, tasks: TaskBatch, steps: Sequence[int] = (0,), batchnorm: str = "inductive"
    ) -> Tensor:
        self.seen.append(tasks)
        right = nn.functional.one_hot(tasks.query_targets, tasks.ways).float()
        zero = torch.zeros_like(right)
        zero[..., 0] = 1
        return torch.stack([right if s >= 2 else zero for s in steps])


def evaluated(algorithm: Algorithm, data: ImageData, **changes: Any) -> list[Any]:
    settings: dict[str, Any] = {
        "split": "test",
        "ways": 3,
        "shots": 2,
        "queries": 4,
        "tasks": 50,
        "seed": 7,
        "steps": None,
        "batchnorm": None,
        "precision": FULL,
        **changes,
    }
    spec = TaskSpec(*(settings.pop(n) for n in ("ways", "shots", "queries")))
    other = {
        n: settings.pop(n) for n in ("precision", "embeddings", "bar", "group") if n in settings
    }
    return evaluate(algorithm, data, EvaluationSetting(spec=spec, **settings), **other)


def test_one_measurement_for_each_number_of_steps(tiny: ImageData) -> None:
    none, two = evaluated(Cheat(), tiny, steps=[0, 2])
    assert none.figures() == {
        "accuracy": pytest.approx(1 / 3),
        "ci95": pytest.approx(0.0, abs=1e-12),
        "tasks": 50,
        "ways": 3,
        "shots": 2,
        "queries": 4,
        "steps": 0,
    }
    assert two.figures()["accuracy"] == 1.0
    assert [r["task"] for r in two.rows("student")] == list(range(50))


def test_several_modes_are_measured_mode_by_mode(tiny: ImageData) -> None:
    class Opposed(Cheat):
        def predict(
            self, tasks: TaskBatch, steps: Sequence[int] = (0,), batchnorm: str = "inductive"
        ) -> Tensor:
            found = super().predict(tasks, steps, batchnorm)
            return found if batchnorm == "inductive" else -found

    modes = ["inductive", "transductive"]
    found = evaluated(Opposed(), tiny, steps=[0, 2], batchnorm=modes)
    assert [(m.batchnorm, m.steps) for m in found] == [(m, s) for m in modes for s in (0, 2)]
    alone = [m for mode in modes for m in evaluated(Opposed(), tiny, steps=[0, 2], batchnorm=mode)]
    for one, other in zip(found, alone, strict=True):
        assert torch.equal(one.values, other.values)
        assert torch.equal(one.logits, other.logits)


def test_where_embeddings_are_known_no_example_is_made(
    tiny: ImageData, backbone: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = ProtoNet(backbone)
    table = embed_split(learner, tiny, "test", FULL)
    monkeypatch.setattr(tiny, "_seen", None)  # would make one
    measured = evaluated(learner, tiny, batchnorm="inductive", embeddings=table)[0]
    assert measured.logits.shape == (50, 12, 3)
    assert measured.classes.shape == (50, 3)


def test_tasks_depend_on_the_seed_alone(tiny: ImageData) -> None:
    first, again, other = Cheat(), Cheat(), Cheat()
    evaluated(first, tiny)
    evaluated(again, tiny, tasks=30, steps=[0, 1])
    evaluated(other, tiny, seed=8)
    index = torch.cat([b.query_index for b in first.seen])
    assert index.shape[0] == 50
    assert torch.equal(torch.cat([b.query_index for b in again.seen]), index[:30])
    assert not torch.equal(torch.cat([b.query_index for b in other.seen]), index)


def test_embedding_once_equals_embedding_each_task(tiny: ImageData, backbone: nn.Module) -> None:
    learner = ProtoNet(backbone)
    measured = evaluated(learner, tiny, batchnorm="inductive")[0]
    tasks = evaluation_tasks(tiny, "test", TaskSpec(3, 2, 4), tasks=50, seed=7)
    each = torch.cat([learner.predict(batch)[0] for batch in tasks])
    assert torch.allclose(measured.logits, each, atol=1e-4)
    table = embed_split(learner, tiny, "test", FULL, batch_size=7)
    assert table.shape == (len(tiny.test), 16)
    given = evaluated(learner, tiny, batchnorm="inductive", embeddings=table * 0)[0]
    assert given.values.mean() == pytest.approx(1 / 3)  # what is handed over is what is used


def test_of_many_images_only_those_of_the_tasks_are_embedded(
    tiny: ImageData, backbone: nn.Module
) -> None:
    learner, passed = ProtoNet(backbone), []
    table = embed_split(learner, tiny, "test", FULL)
    handle = backbone.register_forward_pre_hook(lambda _, given: passed.append(len(given[0])))
    few = evaluated(learner, tiny, tasks=1, batchnorm="inductive")[0]
    handle.remove()
    assert sum(passed) == 3 * (2 + 4) < len(tiny.test) / 2  # its only task's
    given = evaluated(learner, tiny, tasks=1, batchnorm="inductive", embeddings=table)[0]
    assert torch.allclose(few.logits, given.logits, atol=1e-5)
    two = embed_split(learner, tiny, "test", FULL, used=torch.tensor([1, 3]))
    assert two.isfinite().all(1).nonzero().flatten().tolist() == [1, 3]


def test_interval_by_hand(tiny: ImageData, backbone: nn.Module) -> None:
    measured = evaluated(ProtoNet(backbone), tiny)[0]
    figures = measured.figures()
    spread = measured.values.std(correction=1).item()
    assert figures["ci95"] == pytest.approx(1.96 * spread / math.sqrt(50))
    assert "steps" not in figures
    assert "batchnorm" not in figures


def test_regression_is_evaluated_by_squared_error() -> None:
    from metakd.data.sinusoid import SinusoidTasks

    class Zero(Cheat):
        def predict(
            self, tasks: TaskBatch, steps: Sequence[int] = (0,), batchnorm: str = "inductive"
        ) -> Tensor:
            self.seen.append(tasks)
            return torch.zeros(len(steps), *tasks.query_targets.shape)

    learner = Zero()
    measured = evaluated(learner, SinusoidTasks(), ways=1, shots=5, queries=10)[0]  # type: ignore[arg-type]
    targets = torch.cat([b.query_targets for b in learner.seen]).double()
    assert measured.figures()["mse"] == pytest.approx(targets.pow(2).mean().item())
    assert next(iter(measured.rows("student")))["mse"] == measured.values[0].item()


class Diverging(Cheat):
    """As `Cheat`; but after three steps the first query of every other task has no finite logit."""

    def predict(
        self, tasks: TaskBatch, steps: Sequence[int] = (0,), batchnorm: str = "inductive"
    ) -> Tensor:
        found = super().predict(tasks, steps, batchnorm)
        for i, s in enumerate(steps):
            if s >= 3:
                found[i, ::2, 0, 1] = math.nan
        return found


def test_a_prediction_that_is_not_finite_is_no_answer(tiny: ImageData) -> None:
    two, three = evaluated(Diverging(), tiny, steps=[2, 3])
    assert "diverged" not in two.figures()
    assert all("diverged" not in row for row in two.rows("student"))
    figures = three.figures()
    # 12 queries a task, whose first one, of class 0, argmax would have called class 1.
    assert figures["accuracy"] == pytest.approx(1 - 0.5 / 12)
    assert figures["diverged"] == 0.5
    rows = list(three.rows("student"))
    assert [row.get("diverged") for row in rows[:4]] == [1, None, 1, None]
    assert rows[0]["accuracy"] == pytest.approx(11 / 12)


def test_logits_that_are_all_nan_are_not_class_0(tiny: ImageData) -> None:
    class Nan(Cheat):
        def predict(
            self, tasks: TaskBatch, steps: Sequence[int] = (0,), batchnorm: str = "inductive"
        ) -> Tensor:
            return super().predict(tasks, steps, batchnorm) * math.nan

    figures = evaluated(Nan(), tiny)[0].figures()
    assert (figures["accuracy"], figures["diverged"]) == (0.0, 1.0)


@pytest.mark.parametrize(("off", "median"), [(math.nan, True), (1e4, True), (math.nan, False)])
def test_errors_of_which_some_are_no_figures_have_no_mean(off: float, median: bool) -> None:
    from metakd.data.sinusoid import SinusoidTasks

    every = 3 if median else 1

    class Off(Cheat):
        def predict(
            self, tasks: TaskBatch, steps: Sequence[int] = (0,), batchnorm: str = "inductive"
        ) -> Tensor:
            self.seen.append(tasks)
            found = tasks.query_targets[None].repeat(len(steps), 1, 1, 1) + 0.5
            found[:, ::every, 0] = off
            return found

    measured = evaluated(Off(), SinusoidTasks(), ways=1, shots=5, queries=10)[0]  # type: ignore[arg-type]
    figures = measured.figures()
    assert math.isnan(figures["mse"])
    assert math.isnan(figures["ci95"])
    # Of three batches of 20, 20 and 10 tasks every third: 7 + 7 + 4.
    assert figures["diverged"] == (18 / 50 if median else 1.0)
    assert figures["mse_median"] == (pytest.approx(0.25) if median else math.inf)
    row = next(iter(measured.rows("student")))
    assert row["diverged"] == 1
    assert row["mse"] == ("" if math.isnan(off) else measured.values[0].item())


def test_a_network_without_running_statistics_is_evaluated_by_each_support_set(
    tiny: ImageData,
) -> None:
    class Normed(nn.Sequential):
        embedding_size = 64

    torch.manual_seed(0)
    learner = ProtoNet(Normed(BatchNorm2d(1, track_running_stats=False), nn.Flatten()))
    assert not embeds_alone(learner.backbone)
    assert embeds_alone(Normed(BatchNorm2d(1), nn.Flatten()))
    measured = evaluated(learner, tiny, batchnorm="inductive")[0]
    tasks = evaluation_tasks(tiny, "test", TaskSpec(3, 2, 4), tasks=50, seed=7)
    first = next(tasks)
    # By hand: one channel, so standardising by the support set's pixels is a shift and a factor.
    support, query = first.support[0].flatten(1), first.query[0].flatten(1)
    scale = (support.var(correction=0) + 1e-5).rsqrt()
    means = torch.stack([support[first.support_targets[0] == w].mean(0) for w in range(3)])
    distances = torch.cdist(query * scale, means * scale).pow(2)
    assert torch.allclose(measured.logits[0], -distances, rtol=1e-3, atol=1e-2)
