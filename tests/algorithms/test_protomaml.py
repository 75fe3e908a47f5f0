"""Proto-MAML: the head of the prototypes by hand, where it starts, any ways, its gradient."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from metakd.adaptation.inner_loop import tasks_of
from metakd.algorithms.protomaml import ProtoMAML, prototype_head
from metakd.algorithms.protonet import ProtoNet
from metakd.data.tasks import TaskBatch
from metakd.distillation.objective import Objective
from metakd.registry import build


def test_the_head_by_hand() -> None:
    """Classes around (1, 2) and (3, 0): w = 2c, b = -|c|²."""
    body = nn.Identity()
    body.embedding_size = 2
    learner = build(ProtoMAML, body, 7)
    support = torch.tensor([[[0.0, 2.0], [2.0, 2.0], [3.0, 1.0], [3.0, -1.0]]])
    labels = torch.tensor([[0, 0, 1, 1]])
    query = torch.tensor([[[1.0, 0.0]]])
    batch = TaskBatch(support, labels, query, torch.tensor([[0]]), 2, 2, 1)
    loop = learner.inner_loop(Objective(), "transductive", first_order=True)
    found = prototype_head(loop, loop.values(), tasks_of(batch, None).at(0))
    assert found["network.head.weight"].tolist() == [[2.0, 4.0], [6.0, 0.0]]
    assert found["network.head.bias"].tolist() == [-5.0, -9.0]
    assert learner.predict(batch, (0,)).tolist() == [[[[-3.0, -3.0]]]]  # 4 from both


@pytest.mark.parametrize("ways", [2, 3, 5])
def test_before_the_first_step_it_is_a_prototypical_network(
    ways: int, conv: Callable, image_tasks: Callable
) -> None:
    body, tasks = conv(batchnorm=False), image_tasks(ways=ways)
    learner = build(ProtoMAML, copy.deepcopy(body), 3, options={"inner_lr": 0.1})
    found = learner.predict(tasks, (0, 2))
    assert found.shape == (2, 3, 2 * ways, ways)
    expected = ProtoNet(body).predict(tasks)[0]
    torch.testing.assert_close(found[0].softmax(-1), expected.softmax(-1))
    assert not torch.allclose(found[1].softmax(-1), expected.softmax(-1))


def test_the_gradient_reaches_the_body_through_the_prototypes(
    conv: Callable, image_tasks: Callable
) -> None:
    """After no step to speak of (rate 0) it is the gradient of a prototypical network."""
    body, tasks = conv(batchnorm=False), image_tasks()
    net = ProtoNet(copy.deepcopy(body))
    net.accumulate(tasks, Objective(), None)
    for first_order in (True, False):
        options = {"inner_lr": 0.0, "inner_steps": 1, "first_order": first_order}
        learner = build(ProtoMAML, copy.deepcopy(body), 3, options=options)
        learner.accumulate(tasks, Objective(), None)
        for name, p in net.backbone.named_parameters():
            got = learner.backbone.get_parameter(name).grad
            torch.testing.assert_close(got, p.grad)
