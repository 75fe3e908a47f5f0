"""Reptile moves the initialisation towards the adapted parameters."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from metakd.adaptation.inner_loop import Examples
from metakd.algorithms.reptile import Reptile, mini_batches
from metakd.data.tasks import TaskBatch
from metakd.distillation.embedding import EmbeddingMatch
from metakd.distillation.kd import KD
from metakd.distillation.objective import Objective
from metakd.errors import UserError
from metakd.registry import build

pytestmark = pytest.mark.usefixtures("two_workers")

EXECUTIONS = ["loop", "threads", "batched"]


def sgd(backbone: nn.Module, steps: int = 1, **settings: object) -> Reptile:
    given = {"inner_optimizer": "sgd", "inner_batch": None, **settings}
    return build(Reptile, backbone, 3, options={"inner_lr": 0.1, "inner_steps": steps, **given})


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_one_step_has_the_direction_of_plain_sgd(
    execution: str, conv: Callable, image_tasks: Callable, gradient_of: Callable
) -> None:
    tasks = image_tasks()
    reptile = sgd(conv(), execution=execution)
    network = copy.deepcopy(reptile.network).train()
    sum(
        F.cross_entropy(network(tasks.support[i]).logits, tasks.support_targets[i]) / len(tasks)
        for i in range(len(tasks))
    ).backward()
    reptile.accumulate(tasks, Objective(), None)
    for name, gradient in gradient_of(reptile.network).items():
        expected = 0.1 * network.get_parameter(name).grad
        torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_outer_descent_with_rate_one_ends_at_the_mean_of_the_adapted(
    execution: str, conv: Callable, image_tasks: Callable, answers_to: Callable
) -> None:
    """With distillation on the support set; the reference is torch.optim on a copy."""
    tasks = image_tasks()
    answers = answers_to(tasks, "support")
    objective = KD(12, 7, kd_weight=0.5, temperature=2.0)
    reptile = sgd(conv(), steps=3, execution=execution)
    adapted = []
    for i in range(len(tasks)):
        network = copy.deepcopy(reptile.network).train()
        optimizer = torch.optim.SGD(network.parameters(), 0.1)
        for _ in range(3):
            optimizer.zero_grad()
            answer = answers.support[i]
            objective(network(tasks.support[i]), tasks.support_targets[i], answer)[
                "loss"
            ].backward()
            optimizer.step()
        adapted.append(network)
    reptile.accumulate(tasks, objective, answers)
    torch.optim.SGD(reptile.parameters(), 1.0).step()
    for name, parameter in reptile.network.named_parameters():
        mean = torch.stack([n.get_parameter(name).detach() for n in adapted]).mean(0)
        torch.testing.assert_close(parameter.detach(), mean)


@pytest.mark.parametrize("state", ["fresh", "carried"])
def test_inner_adam_is_torchs_with_beta1_zero(
    state: str, mlp: Callable, gradient_of: Callable
) -> None:
    x, y = torch.randn(1, 6, 1), torch.randn(1, 6, 1)
    tasks = TaskBatch(x, y, x, y, 1, 6, 6)
    reptile = build(
        Reptile,
        mlp(),
        1,
        options={"inner_lr": 0.01, "inner_steps": 4, "inner_batch": None, "inner_state": state},
    )
    network = copy.deepcopy(reptile.network)
    optimizer = torch.optim.Adam(network.parameters(), 0.01, betas=(0.0, 0.999), eps=1e-8)
    for _ in range(2):
        start = copy.deepcopy(network.state_dict())
        for _ in range(4):
            optimizer.zero_grad()
            F.mse_loss(network(x[0]).logits, y[0]).backward()
            optimizer.step()
        reptile.zero_grad()
        reptile.accumulate(tasks, Objective(), None)
        for name, gradient in gradient_of(reptile.network).items():
            moved = start[name] - network.get_parameter(name).detach()
            torch.testing.assert_close(gradient, moved, rtol=1e-6, atol=1e-10)
        network.load_state_dict(start)
        if state == "fresh":
            optimizer = torch.optim.Adam(network.parameters(), 0.01, betas=(0.0, 0.999), eps=1e-8)


def test_carried_state_is_saved(mlp: Callable) -> None:
    x, y = torch.randn(2, 6, 1), torch.randn(2, 6, 1)
    tasks = TaskBatch(x, y, x, y, 1, 6, 6)
    backbone = mlp()
    reptile = build(Reptile, backbone, 1, options={"inner_state": "carried"})
    reptile.accumulate(tasks, Objective(), None)
    other = build(Reptile, copy.deepcopy(backbone), 1, options={"inner_state": "carried"})
    other.load_state_dict(reptile.state_dict())
    assert float(other.rule.taken) == reptile.inner_steps
    assert torch.equal(other.predict(tasks, (3,)), reptile.predict(tasks, (3,)))


def test_a_learned_projection_adapts_along(
    conv: Callable, image_tasks: Callable, answers_to: Callable
) -> None:
    tasks = image_tasks()
    objective = EmbeddingMatch(12, 7)
    terms = sgd(conv(), steps=2).accumulate(tasks, objective, answers_to(tasks, "support"))
    assert objective.projection.weight.grad.norm() > 0
    assert {"loss", "loss/ce", "loss/embedding", "student/accuracy"} <= set(terms)


def test_mini_batches_walk_through_random_orders() -> None:
    content = torch.randint(0, 1000, (4, 10))
    order = mini_batches(content, 10, 4, 5)
    assert order.shape == (4, 5, 4)
    for task in order.flatten(1):
        assert task[:10].sort().values.tolist() == list(range(10))
        assert task[10:].sort().values.tolist() == list(range(10))
    assert torch.equal(mini_batches(content[2:3], 10, 4, 5)[0], order[2])
    assert len({tuple(task.flatten().tolist()) for task in order}) == 4
    assert mini_batches(torch.randn(2, 10, 1), 10, 3, 1).shape == (2, 1, 3)
    assert mini_batches(content, 10, 4, 0).shape == (4, 0, 4)


def test_mini_batches_are_what_an_inner_step_sees(
    conv: Callable, image_tasks: Callable, gradient_of: Callable
) -> None:
    tasks = image_tasks(tasks=2)
    reptile = sgd(conv(), steps=1, inner_batch=4)
    order = mini_batches(tasks.support_index, 6, 4, 1)
    network = copy.deepcopy(reptile.network).train()
    for i in range(2):
        seen = order[i, 0]
        logits = network(tasks.support[i][seen]).logits
        (F.cross_entropy(logits, tasks.support_targets[i][seen]) / 2).backward()
    reptile.accumulate(tasks, Objective(), None)
    for name, gradient in gradient_of(reptile.network).items():
        torch.testing.assert_close(gradient, 0.1 * network.get_parameter(name).grad)


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_predict_leaves_no_trace(execution: str, conv: Callable, image_tasks: Callable) -> None:
    reptile = build(Reptile, conv(), 3, options={"inner_batch": 4, "execution": execution})
    tasks = image_tasks()
    before = copy.deepcopy(reptile.state_dict())
    logits = reptile.predict(tasks, (0, 5))
    assert logits.shape == (2, 3, 6, 3)
    for name, value in reptile.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_no_step_is_the_initialisation(conv: Callable, image_tasks: Callable) -> None:
    tasks = image_tasks()
    reptile = build(Reptile, conv(), 3, options={"inner_batch": 4})
    assert torch.equal(reptile.predict(tasks, (0,))[0], reptile.predict(tasks, (0, 2))[0])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"inner_optimizer": "adamw"}, "Did you mean 'adam'"),
        ({"inner_state": "carry"}, "Did you mean 'carried'"),
        ({"inner_batch": 0}, "at least 1 example"),
    ],
)
def test_refuses(settings: dict, words: str, conv: Callable) -> None:
    with pytest.raises(UserError, match=words):
        build(Reptile, conv(), 3, options=settings)


def test_a_mini_batch_keeps_what_the_teacher_says_of_all_classes() -> None:
    taught = {"logits": torch.randn(6, 3), "prototypes": torch.randn(3, 2)}
    whole = Examples(torch.randn(6, 4), torch.arange(6) % 3, taught)
    some = whole.chosen(torch.tensor([5, 1]))
    assert torch.equal(some.taught["prototypes"], taught["prototypes"])
    assert torch.equal(some.taught["logits"], taught["logits"][[5, 1]])
    assert torch.equal(some.inputs, whole.inputs[[5, 1]])
    assert some.targets.tolist() == [2, 1]
