"""Gradients are partial derivatives, however taken; `auto` leaves what vmap cannot run."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from metakd.adaptation.differentiation import by_autograd, by_transform
from metakd.adaptation.inner_loop import InnerLoop, Task, tasks_of
from metakd.adaptation.task_execution import stack_over_tasks
from metakd.algorithms.maml import MAML
from metakd.distillation.objective import Objective
from metakd.registry import build


def _product(at: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    return at["w"] * at["h"], {}


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("differentiate", [by_autograd, by_transform])
def test_partial_derivatives_where_one_value_comes_from_another(
    differentiate: Callable, create_graph: bool
) -> None:
    """At {w = 3, h = 2w}: ∂(w h)/∂w = h = 6, whatever h was computed from; ∂/∂h = w = 3."""
    w = torch.tensor(3.0, requires_grad=True)
    found, value, _ = differentiate(_product, {"w": w, "h": 2 * w}, create_graph=create_graph)
    assert (found["w"].item(), found["h"].item(), value.item()) == (6.0, 3.0, 18.0)


def test_the_outer_gradient_sees_through_both() -> None:
    """d/dw of (∂(w h)/∂w + ∂(w h)/∂h) = d(h + w)/dw = 3 with h = 2w."""
    w = torch.tensor(3.0, requires_grad=True)
    found, _, _ = by_autograd(_product, {"w": w, "h": 2 * w}, create_graph=True)
    assert torch.autograd.grad(found["w"] + found["h"], w)[0].item() == 3.0


@pytest.mark.parametrize("differentiate", [by_autograd, by_transform])
@pytest.mark.parametrize(("create_graph", "expected"), [(False, 0.0), (True, 2.0)])
def test_a_constant_gradient_is_constant_in_what_it_closes_over(
    differentiate: Callable, create_graph: bool, expected: float
) -> None:
    """d/de of ∂(h e²/2 + h)/∂h = e, at e = 2: an embedding made before, as ANIL's."""

    def outer(at: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        def inner(head: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
            return head["h"] * (at["e"] ** 2 / 2 + 1), {}

        start = {"h": torch.tensor(3.0)}
        found = differentiate(inner, start, create_graph=create_graph)[0]["h"]
        return found + 0.0 * at["e"], {}

    gradients, _, _ = differentiate(outer, {"e": torch.tensor(2.0)}, create_graph=False)
    assert gradients["e"].item() == expected


def test_a_constant_has_a_gradient_too() -> None:
    w = torch.tensor(3.0, requires_grad=True)
    found, _, _ = by_autograd(_product, {"w": w, "h": torch.tensor(2.0)}, create_graph=True)
    assert (found["w"].item(), found["h"].item()) == (2.0, 3.0)


def test_a_start_computed_from_another_value(mlp: Callable, image_tasks: Callable) -> None:
    """Second order, the head's start made of the body's: loop, batched and differences agree."""
    tasks = image_tasks(tasks=2)
    tasks = tasks_of(tasks, None)
    tasks = tasks._replace(
        support=tasks.support._replace(inputs=tasks.support.inputs.flatten(2)[..., :5]),
        query=tasks.query._replace(inputs=tasks.query.inputs.flatten(2)[..., :5]),
    )
    learner = build(MAML, mlp(5, 3), 3, options={"inner_lr": 0.5, "inner_steps": 2})
    loop = learner.inner_loop(Objective(), "transductive", first_order=False)
    values = {n: v.detach() for n, v in loop.values().items()}
    body = "network.backbone.layers.2.weight"  # [3, 3], as the head's

    def loss(mine: InnerLoop, task: Task, weight: Tensor) -> Tensor:
        made = {**values, body: weight, "network.head.weight": 2 * weight}
        return mine.query_terms(made, task, 2)["loss"]

    def gradient(mine: InnerLoop, task: Task) -> Tensor:
        def of(at: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
            return loss(mine, task, at["w"]), {}

        return mine.differentiate(of, {"w": values[body]}, create_graph=False)[0]["w"]

    one_by_one = stack_over_tasks(gradient, loop, tasks, "loop").mean(0)
    at_once = stack_over_tasks(gradient, loop, tasks, "batched").mean(0)
    torch.testing.assert_close(one_by_one, at_once)
    way = torch.randn(3, 3)
    sides = [
        torch.stack(
            [loss(loop, tasks.at(i), values[body] + s * 1e-5 * way).detach() for i in range(2)]
        ).mean()
        for s in (1, -1)
    ]
    torch.testing.assert_close(
        (one_by_one * way).sum(), (sides[0] - sides[1]) / 2e-5, rtol=1e-6, atol=1e-9
    )


class Recurrent(nn.Module):
    """A GRU over the rows of an image, which vmap cannot run."""

    embedding_size = 4

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.GRU(8, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.rows(x.flatten(0, 1))[0][:, -1]


class Undecided(nn.Module):
    """Looks at a value to decide what to do, and draws random numbers before that."""

    embedding_size = 64

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1) + 0.1 * torch.rand(1)
        return 2 * x if x.sum() > 0 else x


@pytest.mark.parametrize("backbone", [Recurrent, Undecided])
def test_auto_falls_back_to_the_loop_and_says_so_once(
    backbone: type[nn.Module], image_tasks: Callable
) -> None:
    tasks = image_tasks(tasks=2)
    found = {}
    for execution in ("loop", "auto"):
        torch.manual_seed(1)
        learner = build(MAML, backbone(), 3, options={"execution": execution, "inner_steps": 2})
        torch.manual_seed(2)
        losses = [float(learner.accumulate(tasks, Objective(), None)["loss"]) for _ in range(2)]
        found[execution] = [*losses, learner.predict(tasks, (1,)).sum().item()]
        lines = learner.concerns()
    assert found["auto"] == found["loop"]
    assert learner.execution_for(2, torch.device("cpu")) == "loop"
    assert len(lines) == 1
    assert "torch.func.vmap cannot run this network" in lines[0]
    with pytest.raises(RuntimeError):  # what was asked for by name is not exchanged
        build(MAML, backbone(), 3, options={"execution": "batched"}).accumulate(
            tasks, Objective(), None
        )


def test_an_error_of_the_network_is_no_matter_of_vmap(mlp: Callable, image_tasks: Callable) -> None:
    learner = build(MAML, mlp(5, 3), 3)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        learner.accumulate(image_tasks(tasks=2), Objective(), None)
    assert learner.concerns() == []
