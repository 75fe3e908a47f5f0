"""Prototypical networks."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from metakd.algorithms.protonet import ProtoNet
from metakd.data.tasks import TaskBatch
from metakd.distillation.embedding import EmbeddingMatch
from metakd.distillation.objective import Objective
from metakd.errors import UserError
from metakd.models.network import Prediction

DISTANCES = ["euclidean", "euclidean_root", "cosine"]


class Identity(nn.Identity):
    embedding_size = 2


def worked_example() -> TaskBatch:
    """Class 0 at (0,0) and (2,0), class 1 at (0,4) and (0,6); queries (1,1) and (0,3)."""
    return TaskBatch(
        torch.tensor([[[0.0, 0.0], [2.0, 0.0], [0.0, 4.0], [0.0, 6.0]]]),
        torch.tensor([[0, 0, 1, 1]]),
        torch.tensor([[[1.0, 1.0], [0.0, 3.0]]]),
        torch.tensor([[0, 1]]),
        2,
        2,
        1,
    )


def test_worked_example() -> None:
    """Prototypes (1,0) and (0,5): squared distances 1, 17 and 10, 4."""
    net = ProtoNet(Identity())
    tasks = worked_example()
    expected = torch.tensor([[[[-1.0, -17.0], [-10.0, -4.0]]]])
    torch.testing.assert_close(net.predict(tasks), expected)
    terms = Objective()(Prediction(expected[0]), tasks.query_targets, None)
    by_hand = (math.log1p(math.exp(-16)) + math.log1p(math.exp(-6))) / 2
    assert float(terms["loss"]) == pytest.approx(by_hand)


@pytest.mark.parametrize(
    ("distance", "expected"),
    [
        ("euclidean_root", [[-1.0, -math.sqrt(17)], [-math.sqrt(10), -2.0]]),
        ("cosine", [[10 / math.sqrt(2), 10 / math.sqrt(2)], [0.0, 10.0]]),
    ],
)
def test_other_distances(distance: str, expected: list) -> None:
    net = ProtoNet(Identity(), distance=distance)
    torch.testing.assert_close(net.predict(worked_example())[0, 0], torch.tensor(expected))


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("batchnorm", ["inductive", "transductive"])
def test_permuted_support_gives_the_same_predictions(
    distance: str, batchnorm: str, conv: Callable, image_tasks: Callable
) -> None:
    net, tasks = ProtoNet(conv(), distance=distance), image_tasks()
    order = torch.randperm(6)
    permuted = replace(
        tasks,
        support=tasks.support[:, order],
        support_targets=tasks.support_targets[:, order],
    )
    torch.testing.assert_close(
        net.predict(permuted, (0,), batchnorm), net.predict(tasks, (0,), batchnorm)
    )


@pytest.mark.parametrize("distance", DISTANCES)
def test_permuted_classes_permute_predictions(
    distance: str, conv: Callable, image_tasks: Callable
) -> None:
    net, tasks = ProtoNet(conv(), distance=distance), image_tasks()
    order = torch.tensor([2, 0, 1])
    renamed = replace(tasks, support_targets=order.argsort()[tasks.support_targets])
    torch.testing.assert_close(net.predict(renamed), net.predict(tasks)[..., order])


def test_gradient_equals_finite_differences_with_distillation(
    conv: Callable, image_tasks: Callable, answers_to: Callable
) -> None:
    tasks = image_tasks()
    answers = answers_to(tasks, "query")
    both = nn.ModuleList([ProtoNet(conv(), distance="cosine"), EmbeddingMatch(12, 7, kd_weight=1)])
    both.train()
    terms = both[0].accumulate(tasks, both[1], answers)
    assert {"loss", "loss/kd", "loss/embedding", "student/accuracy"} <= set(terms)
    for name, parameter in both.named_parameters():
        direction = torch.randn_like(parameter)
        losses = []
        for sign in (1, -1):
            moved = copy.deepcopy(both)
            with torch.no_grad():
                moved.get_parameter(name).add_(direction, alpha=sign * 1e-5)
            losses.append(moved[0].accumulate(tasks, moved[1], answers)["loss"])
        slope = (losses[0] - losses[1]) / 2e-5
        torch.testing.assert_close(
            (parameter.grad * direction).sum(), slope, rtol=1e-6, atol=1e-8, msg=name
        )


def test_root_of_a_zero_distance_has_a_finite_gradient() -> None:
    point = torch.zeros(1, 1, 2, requires_grad=True)
    net = ProtoNet(Identity(), distance="euclidean_root")
    net.classify(point, torch.zeros(1, 1, dtype=torch.int64), point, 1).sum().backward()
    assert torch.isfinite(point.grad).all()


def test_training_moves_running_statistics_and_predicting_does_not(
    conv: Callable, image_tasks: Callable
) -> None:
    net, tasks = ProtoNet(conv()).train(), image_tasks()
    net.accumulate(tasks, Objective(), None)
    assert net.backbone.norm1.running_mean.norm() > 0
    before = copy.deepcopy(net.state_dict())
    for batchnorm in ("inductive", "transductive"):
        net.predict(tasks, (0,), batchnorm)
    assert net.training
    assert net.backbone.norm1.training
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_inductive_without_running_statistics_takes_the_support_sets(
    conv: Callable, image_tasks: Callable
) -> None:
    from metakd.models.normalization import batchnorm_mode, set_running_statistics

    net, tasks = ProtoNet(conv()), image_tasks()
    set_running_statistics(net.backbone, False)
    found = net.predict(tasks)
    with batchnorm_mode(net.backbone, "record"):
        support = net.backbone(tasks.support[1])
    with batchnorm_mode(net.backbone, "recorded"):
        query = net.backbone(tasks.query[1])
    expected = net.classify(support[None], tasks.support_targets[1:2], query[None], 3)
    torch.testing.assert_close(found[0, 1], expected[0])


def test_transductive_tasks_do_not_mix(conv: Callable, image_tasks: Callable) -> None:
    net, tasks = ProtoNet(conv()), image_tasks()
    together = net.predict(tasks, (0,), "transductive")
    torch.testing.assert_close(net.predict(tasks[:1], (0,), "transductive"), together[:, :1])


def test_any_number_of_ways(conv: Callable, image_tasks: Callable) -> None:
    net = ProtoNet(conv(), 3)
    assert net.predict(image_tasks(ways=5)).shape == (1, 3, 10, 5)


def test_distances_are_float32_under_autocast(conv: Callable, image_tasks: Callable) -> None:
    net = ProtoNet(Identity())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = net.classify(
            1000 + torch.rand(1, 4, 2).float(),
            torch.tensor([[0, 0, 1, 1]]),
            1000 + torch.rand(1, 3, 2).float(),
            2,
        )
    assert logits.dtype == torch.float32
    assert logits.abs().max() < 10


def test_refuses_an_unknown_distance() -> None:
    with pytest.raises(UserError, match="Did you mean 'cosine'"):
        ProtoNet(Identity(), distance="cosin")
