"""ANIL equals MAML whose inner loop leaves the body alone."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F

from metakd.algorithms.anil import ANIL
from metakd.distillation.embedding import EmbeddingMatch
from metakd.distillation.objective import Objective
from metakd.registry import build

pytestmark = pytest.mark.usefixtures("two_workers")


@pytest.mark.parametrize("execution", ["loop", "threads", "batched"])
def test_equals_maml_with_the_body_frozen_in_the_inner_loop(
    execution: str, conv: Callable, image_tasks: Callable, gradient_of: Callable
) -> None:
    """The reference embeds anew in each step, and moves the head alone."""
    tasks, steps, rate = image_tasks(), 3, 0.4
    anil = build(
        ANIL, conv(), 3, options={"inner_lr": rate, "inner_steps": steps, "execution": execution}
    )
    network = copy.deepcopy(anil.network)
    network.train()
    total = torch.zeros(())
    for i in range(len(tasks)):
        weight, bias = network.head.weight, network.head.bias
        for _ in range(steps):
            logits = F.linear(network.backbone(tasks.support[i]), weight, bias)
            loss = F.cross_entropy(logits, tasks.support_targets[i])
            dw, db = torch.autograd.grad(loss, (weight, bias), create_graph=True)
            weight, bias = weight - rate * dw, bias - rate * db
        logits = F.linear(network.backbone(tasks.query[i]), weight, bias)
        total = total + F.cross_entropy(logits, tasks.query_targets[i]) / len(tasks)
    total.backward()
    anil.accumulate(tasks, Objective(), None)
    for name, gradient in gradient_of(anil.network).items():
        expected = network.get_parameter(name).grad
        torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize("batchnorm", ["transductive", "inductive"])
@pytest.mark.parametrize("execution", ["loop", "batched"])
def test_equals_finite_differences_with_distillation(
    batchnorm: str,
    execution: str,
    conv: Callable,
    image_tasks: Callable,
    answers_to: Callable,
    gradient_of: Callable,
) -> None:
    tasks = image_tasks(tasks=2)
    answers = answers_to(tasks, "both")
    objective = EmbeddingMatch(12, 7, torch.randn(7), kd_weight=0.5)
    anil = build(
        ANIL,
        conv(),
        3,
        options={"inner_lr": 0.4, "inner_steps": 2, "batchnorm": batchnorm, "execution": execution},
    )
    anil.accumulate(tasks, objective, answers)
    gradients = gradient_of(anil)
    for name in ("network.backbone.conv1.weight", "network.head.weight"):
        direction = torch.randn_like(gradients[name])
        losses = []
        for sign in (1, -1):
            moved = copy.deepcopy(anil)
            with torch.no_grad():
                moved.get_parameter(name).add_(direction, alpha=sign * 1e-5)
            losses.append(moved.accumulate(tasks, copy.deepcopy(objective), answers)["loss"])
        slope = (losses[0] - losses[1]) / 2e-5
        torch.testing.assert_close((gradients[name] * direction).sum(), slope, rtol=1e-6, atol=1e-8)


def test_predict_moves_the_head_alone(conv: Callable, image_tasks: Callable) -> None:
    tasks = image_tasks()
    anil = build(ANIL, conv(), 3, options={"inner_lr": 0.4, "inner_steps": 2})
    before = copy.deepcopy(anil.state_dict())
    logits = anil.predict(tasks, (0, 2), "transductive")
    anil.network.train()
    for i in range(len(tasks)):
        embeddings = anil.backbone(tasks.query[i])
        torch.testing.assert_close(logits[0, i], anil.network.head(embeddings))
    anil.network.load_state_dict({k.removeprefix("network."): v for k, v in before.items()})
    assert not torch.allclose(logits[0], logits[1])
