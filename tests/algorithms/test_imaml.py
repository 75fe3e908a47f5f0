"""iMAML's gradient against a direct solve, and against differences of the whole procedure."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metakd.algorithms.imaml import IMAML, conjugate_gradient
from metakd.data.tasks import TaskBatch
from metakd.distillation.embedding import EmbeddingMatch
from metakd.distillation.objective import Objective
from metakd.errors import UserError
from metakd.registry import build
from metakd.stages.graph_memory import peak_of_graph

pytestmark = pytest.mark.usefixtures("two_workers")

EXECUTIONS = ["loop", "threads", "batched"]


def learner(backbone: nn.Module, outputs: int = 3, **settings: Any) -> IMAML:
    given = {"inner_lr": 0.1, "inner_steps": 3, "damping": 0.0, **settings}
    return build(IMAML, backbone, outputs, options=given)


def sinusoids(tasks: int = 2) -> TaskBatch:
    x, y = torch.randn(2, tasks, 5, 1), torch.randn(2, tasks, 5, 1)
    return TaskBatch(x[0], y[0], x[1], y[1], 1, 5, 5)


@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("damping", [0.0, 0.7])
def test_equals_a_direct_solve(execution: str, damping: float, mlp: Callable) -> None:
    """Everything anew: the steps, the Hessian entry by entry, a dense solver."""
    tasks, rate, strength, steps = sinusoids(), 0.1, 3.0, 3
    imaml = learner(
        mlp(width=3), 1, proximal=strength, cg_steps=40, damping=damping, execution=execution
    )
    named = dict(imaml.network.named_parameters())
    sizes = [p.numel() for p in named.values()]
    start = torch.cat([p.detach().flatten() for p in named.values()])

    def loss(flat: Tensor, x: Tensor, y: Tensor) -> Tensor:
        pieces = [v.view_as(p) for v, p in zip(flat.split(sizes), named.values(), strict=True)]
        values = dict(zip(named, pieces, strict=True))
        return F.mse_loss(torch.func.functional_call(imaml.network, values, (x,)).logits, y)

    expected = torch.zeros_like(start)
    for i in range(len(tasks)):
        support = (tasks.support[i], tasks.support_targets[i])
        at = start
        for _ in range(steps):
            slope = torch.func.grad(loss)(at, *support)
            at = at - rate * (slope + strength * (at - start))
        right = torch.func.grad(loss)(at, tasks.query[i], tasks.query_targets[i])
        hessian = torch.autograd.functional.hessian(lambda v, s=support: loss(v, *s), at)
        system = torch.eye(len(at)) + hessian / (strength + damping)
        expected += torch.linalg.solve(system, right) / len(tasks)
    imaml.accumulate(tasks, Objective(), None)
    found = torch.cat([p.grad.flatten() for p in named.values()])
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize(
    ("batchnorm", "execution"), [("inductive", "loop"), ("transductive", "batched")]
)
def test_equals_differences_of_the_whole_procedure(
    batchnorm: str, execution: str, conv: Callable, image_tasks: Callable, answers_to: Callable
) -> None:
    """At the minimum, also for a projection that is learned in the inner and the outer loss."""
    tasks = image_tasks(tasks=2)
    answers = answers_to(tasks, "both")
    weights = {"ce_weight": 1.0, "embedding_weight": 0.2, "similarity_weight": 0.05}
    objective = EmbeddingMatch(12, 7, torch.randn(7), **weights, kd_weight=0.05)
    imaml = learner(
        conv(), proximal=20.0, inner_lr=0.02, inner_steps=50, cg_steps=25,
        batchnorm=batchnorm, execution=execution,
    )  # fmt: skip
    both = nn.ModuleList([imaml, objective])
    imaml.accumulate(tasks, objective, answers)
    for module in both:
        slope = torch.zeros(())
        moved = [copy.deepcopy(both), copy.deepcopy(both)]
        place = 0 if module is imaml else 1
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                direction = torch.randn_like(parameter)
                slope += (parameter.grad * direction).sum()
                moved[0][place].get_parameter(name).add_(direction, alpha=1e-5)
                moved[1][place].get_parameter(name).sub_(direction, alpha=1e-5)
        losses = [m[0].accumulate(tasks, m[1], answers)["loss"] for m in moved]
        expected = (losses[0] - losses[1]) / 2e-5
        torch.testing.assert_close(slope, expected, rtol=1e-5, atol=1e-7)


def test_without_solving_it_is_the_query_gradient_at_the_end(
    mlp: Callable, gradient_of: Callable
) -> None:
    """`cg_steps=0` leaves x = ∇L(φ*); the steps are pulled back to the start."""
    tasks = sinusoids(1)
    imaml = learner(mlp(), 1, proximal=2.0, cg_steps=0, inner_steps=2)
    network = copy.deepcopy(imaml.network)
    start = [p.detach().clone() for p in network.parameters()]
    for _ in range(2):
        network.zero_grad()
        F.mse_loss(network(tasks.support[0]).logits, tasks.support_targets[0]).backward()
        with torch.no_grad():
            for p, first in zip(network.parameters(), start, strict=True):
                p -= 0.1 * (p.grad + 2.0 * (p - first))
    network.zero_grad()
    predicted = network(tasks.query[0]).logits
    F.mse_loss(predicted, tasks.query_targets[0]).backward()
    imaml.accumulate(tasks, Objective(), None)
    for name, gradient in gradient_of(imaml.network).items():
        torch.testing.assert_close(gradient, network.get_parameter(name).grad)
    torch.testing.assert_close(imaml.predict(tasks, (2,))[0, 0], predicted)


def test_memory_does_not_depend_on_the_steps(conv: Callable, image_tasks: Callable) -> None:
    tasks, peaks = image_tasks(tasks=1), []
    backbone = conv()
    for steps in (2, 12):
        imaml = learner(copy.deepcopy(backbone), inner_steps=steps, execution="loop")
        with peak_of_graph(imaml.parameters()) as memory:
            imaml.accumulate(tasks, Objective(), None)
        peaks.append(memory.bytes)
    assert peaks[0] == peaks[1] > 0


def test_solver_against_a_dense_one() -> None:
    a = torch.randn(6, 6)
    a, b = a @ a.T + 0.5 * torch.eye(6), torch.randn(6)

    def system(v: dict[str, Tensor]) -> dict[str, Tensor]:
        product = a @ torch.cat([v["x"], v["y"]])
        return {"x": product[:2], "y": product[2:]}

    right = {"x": b[:2], "y": b[2:]}
    expected = torch.linalg.solve(a, b)
    errors = []
    for steps in (0, 3, 6, 50):
        found = conjugate_gradient(system, right, steps)
        error = torch.cat([found["x"], found["y"]]) - expected
        errors.append(float(error @ a @ error))  # what each step makes smaller
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-12
    assert errors[3] < 1e-12


def test_solver_stands_still_without_positive_curvature() -> None:
    """Also at the solution, where 0 / 0 lurks."""
    right = {"x": torch.tensor([1.0, 2.0])}
    found = conjugate_gradient(lambda v: {"x": -v["x"]}, right, 5)
    assert torch.equal(found["x"], right["x"])
    found = conjugate_gradient(lambda v: v, right, 5)
    assert torch.equal(found["x"], right["x"])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"proximal": 0.0}, "above 0"),
        ({"cg_steps": -1}, "0 or more steps"),
        ({"damping": -0.5}, "0 or more"),
    ],
)
def test_refuses(settings: dict, words: str, conv: Callable) -> None:
    with pytest.raises(UserError, match=words):
        learner(conv(), **settings)
