"""Gradients on a transformer in float64, on every path, against a loop written out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metakd.algorithms.anil import ANIL
from metakd.algorithms.maml import MAML
from metakd.algorithms.protonet import ProtoNet
from metakd.data.tasks import TaskBatch
from metakd.distillation.objective import Objective
from metakd.models.text_bag import TextBag
from metakd.models.text_cnn import TextCNN
from metakd.models.transformer import Transformer
from metakd.registry import build

STEPS, RATE, WIDTH = 2, 0.3, 4
Values = dict[str, Tensor]

pytestmark = pytest.mark.usefixtures("two_workers")


def transformer() -> Transformer:
    return Transformer((8,), width=WIDTH, heads=1, depth=2, vocabulary=257, length=8)


def text_tasks(tasks: int = 2, ways: int = 3, shots: int = 2, queries: int = 2) -> TaskBatch:
    """Random texts of one to eight tokens; the last of each side is the longest."""

    def side(each: int) -> Tensor:
        ids = torch.randint(1, 258, (tasks, ways * each, 8))
        lengths = torch.randint(1, 9, (tasks, ways * each, 1))
        lengths[:, -1] = 8
        return torch.where(torch.arange(8) < lengths, ids, 0)

    def labels(each: int) -> Tensor:
        return torch.arange(ways).repeat_interleave(each).repeat(tasks, 1)

    return TaskBatch(
        side(shots), labels(shots), side(queries), labels(queries), ways, shots, queries
    )


def normed(v: Values, name: str, x: Tensor) -> Tensor:
    mean = x.mean(-1, keepdim=True)
    var = ((x - mean) ** 2).mean(-1, keepdim=True)
    return (x - mean) / (var + 1e-5).sqrt() * v[name + ".norm.weight"] + v[name + ".norm.bias"]


def linear(v: Values, name: str, x: Tensor) -> Tensor:
    return x @ v[name + ".weight"].T + v[name + ".bias"]


def embedded(v: Values, ids: list[int]) -> Tensor:
    """One text of one head, without any padding, [width]."""
    rates = [1 / 10000 ** (2 * (i // 2) / WIDTH) for i in range(WIDTH)]
    places = torch.tensor(
        [
            [math.cos(p * r) if i % 2 else math.sin(p * r) for i, r in enumerate(rates)]
            for p in range(len(ids))
        ]
    )
    # The network keeps its places in float32.
    x = v["vectors.weight"][ids] + places.float().double()
    for i in range(2):
        layer = f"layers.{i}."
        q, k, value = linear(v, layer + "query_key_value", normed(v, layer + "norm1", x)).chunk(
            3, dim=-1
        )
        weights = (q @ k.T / math.sqrt(WIDTH)).exp()
        weights = weights / weights.sum(-1, keepdim=True)
        x = x + linear(v, layer + "out", weights @ value)
        h = linear(v, layer + "up", normed(v, layer + "norm2", x))
        h = h * 0.5 * (1 + torch.erf(h / math.sqrt(2)))
        x = x + linear(v, layer + "down", h)
    return normed(v, "norm", x).mean(0)


def embeddings(values: Values, texts: Tensor) -> Tensor:
    own = {n.removeprefix("backbone."): v for n, v in values.items() if n.startswith("backbone.")}
    return torch.stack([embedded(own, row[row > 0].tolist()) for row in texts])


def logits(values: Values, texts: Tensor) -> Tensor:
    return linear(values, "head", embeddings(values, texts))


def meta_gradient(network: nn.Module, tasks: TaskBatch, *, detach: bool, adapted: str) -> Values:
    """By a straight loop: create_graph all the way, backward once."""
    values = {n: p.detach().clone().requires_grad_() for n, p in network.named_parameters()}
    total = torch.zeros(())
    for i in range(len(tasks)):
        fast = dict(values)
        moving = [n for n in fast if n.startswith(adapted)]
        for _ in range(STEPS):
            loss = F.cross_entropy(logits(fast, tasks.support[i]), tasks.support_targets[i])
            grads = torch.autograd.grad(loss, [fast[n] for n in moving], create_graph=True)
            for name, grad in zip(moving, grads, strict=True):
                fast[name] = fast[name] - RATE * (grad.detach() if detach else grad)
        total = total + F.cross_entropy(logits(fast, tasks.query[i]), tasks.query_targets[i])
    (total / len(tasks)).backward()
    return {n: v.grad for n, v in values.items() if v.grad is not None}


def settings(**more: Any) -> dict[str, Any]:
    return {"inner_lr": RATE, "inner_steps": STEPS, **more}


@pytest.mark.parametrize("execution", ["loop", "threads", "batched"])
@pytest.mark.parametrize(("kind", "adapted"), [(MAML, ""), (ANIL, "head.")], ids=["maml", "anil"])
@pytest.mark.parametrize("first_order", [False, True], ids=["second", "first"])
def test_meta_gradients(
    execution: str, kind: type, adapted: str, first_order: bool, gradient_of: Callable
) -> None:
    tasks = text_tasks()
    learner = build(
        kind,
        transformer(),
        3,
        options=settings(execution=execution, first_order=first_order),
    )
    expected = meta_gradient(learner.network, tasks, detach=first_order, adapted=adapted)
    learner.train()
    learner.accumulate(tasks, Objective(), None)
    found = gradient_of(learner.network)
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-8, atol=1e-11, msg=name)


def test_protonet(gradient_of: Callable) -> None:
    tasks, learner = text_tasks(), ProtoNet(transformer())
    values = {n: p.detach().clone().requires_grad_() for n, p in learner.named_parameters()}
    total = torch.zeros(())
    for i in range(len(tasks)):
        shown, asked = (embeddings(values, side[i]) for side in (tasks.support, tasks.query))
        centres = torch.stack([shown[tasks.support_targets[i] == c].mean(0) for c in range(3)])
        distances = ((asked[:, None] - centres[None]) ** 2).sum(-1)
        total = total + F.cross_entropy(-distances, tasks.query_targets[i]) / len(tasks)
    total.backward()
    learner.train()
    learner.accumulate(tasks, Objective(), None)
    for name, gradient in gradient_of(learner).items():
        torch.testing.assert_close(gradient, values[name].grad, rtol=1e-8, atol=1e-11, msg=name)


@pytest.mark.parametrize(
    "backbone",
    [
        lambda: TextBag((16,), width=4, vector=3, buckets=257, length=8),
        lambda: TextCNN((16,), width=2, vector=3, windows=(1, 3), vocabulary=257, length=8),
    ],
    ids=["text_bag", "text_cnn"],
)
def test_batched_equals_the_loop(backbone: Callable[[], nn.Module], gradient_of: Callable) -> None:
    tasks, found = text_tasks(), []
    for execution in ("loop", "batched"):
        torch.manual_seed(1)
        learner = build(MAML, backbone(), 3, options=settings(execution=execution))
        learner.train()
        learner.accumulate(tasks, Objective(), None)
        found.append(gradient_of(learner.network))
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name], rtol=1e-9, atol=1e-12, msg=name)
