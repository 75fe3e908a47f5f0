"""Settings that change in the course of training: worked weights, gradients, equal when off."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metakd.adaptation.outer_gradients import unrolled
from metakd.adaptation.settings import Adaptation, Annealing
from metakd.algorithms.maml import MAML
from metakd.algorithms.reptile import Reptile
from metakd.data.tasks import TaskBatch
from metakd.distillation.objective import Objective
from metakd.errors import UserError
from metakd.registry import build

pytestmark = pytest.mark.usefixtures("two_workers")

RATE, STEPS = 0.3, 4


def learner(backbone: nn.Module, **settings: Any) -> MAML:
    torch.manual_seed(3)
    return build(
        MAML,
        copy.deepcopy(backbone),
        3,
        options={"inner_lr": RATE, "inner_steps": STEPS, **settings},
    )


def gradients(maml: MAML, tasks: TaskBatch) -> dict[str, Tensor]:
    maml.accumulate(tasks, Objective(), None)
    found = {name: p.grad for name, p in maml.network.named_parameters()}
    maml.zero_grad()
    return found


def reference(maml: MAML, tasks: TaskBatch, weights: list[float], first_order: bool) -> Any:
    """A straight loop with PyTorch's functional call; batch norm by the batch's statistics."""
    network = copy.deepcopy(maml.network).train()
    values = {n: p.detach().clone().requires_grad_() for n, p in network.named_parameters()}
    total = torch.zeros(())
    for i in range(len(tasks)):
        fast = values
        for weight in weights:
            logits = torch.func.functional_call(network, fast, (tasks.support[i],)).logits
            loss = F.cross_entropy(logits, tasks.support_targets[i])
            grads = torch.autograd.grad(loss, list(fast.values()), create_graph=True)
            if first_order:
                grads = tuple(g.detach() for g in grads)
            fast = {n: v - RATE * g for (n, v), g in zip(fast.items(), grads, strict=True)}
            logits = torch.func.functional_call(network, fast, (tasks.query[i],)).logits
            total = total + weight * F.cross_entropy(logits, tasks.query_targets[i]) / len(tasks)
    total.backward()
    return {n: v.grad for n, v in values.items()}, total.detach()


def test_worked_weights() -> None:
    """5 steps; of 100 updates the first 50 are annealed."""
    annealing = Annealing(multi_step=0.5)
    assert annealing.weights(0, 100, 5) == pytest.approx((0.2, 0.2, 0.2, 0.2, 0.2))
    assert annealing.weights(25, 100, 5) == pytest.approx((0.1, 0.1, 0.1, 0.1, 0.6))
    assert annealing.weights(40, 100, 5) == pytest.approx((0.04, 0.04, 0.04, 0.04, 0.84))
    assert annealing.weights(50, 100, 5) is None
    assert annealing.weights(99, 100, 5) is None
    assert annealing.weights(0, 100, 1) is None
    assert Annealing().weights(0, 100, 5) is None


def test_worked_order() -> None:
    annealing = Annealing(first_order_share=0.1)
    assert [annealing.is_first_order(s, 30) for s in (0, 2, 3, 29)] == [True, True, False, False]
    assert not Annealing().is_first_order(0, 30)
    assert Annealing(first_order_share=1.0).is_first_order(29, 30)


def test_phases_cover_the_training() -> None:
    assert Annealing().phases(100) == [(0, 100)]
    assert Annealing(0.5, 0.2).phases(100) == [(0, 20), (20, 30), (50, 50)]
    assert Annealing(1.0).phases(7) == [(0, 7)]


@pytest.mark.parametrize("execution", ["loop", "threads", "batched"])
@pytest.mark.parametrize("first_order", [False, True], ids=["second", "first"])
def test_multi_step_equals_an_independent_loop(
    execution: str, first_order: bool, conv: Callable, image_tasks: Callable
) -> None:
    """At the start, amid and after the annealing, in any order of calls (a resumed run)."""
    tasks = image_tasks()
    maml = learner(conv(), multi_step=0.5, execution=execution, first_order=first_order)
    expected = {
        0: [0.25, 0.25, 0.25, 0.25],
        10: [0.125, 0.125, 0.125, 0.625],
        20: [0.0, 0.0, 0.0, 1.0],
    }
    for step in (10, 20, 0):
        maml.begin(step, 40)
        wanted, total = reference(maml, tasks, expected[step], first_order)
        for name, gradient in gradients(maml, tasks).items():
            torch.testing.assert_close(gradient, wanted[name], rtol=1e-9, atol=1e-12, msg=name)
        torch.testing.assert_close(maml.accumulate(tasks, Objective(), None)["loss"], total)
        maml.zero_grad()


def test_other_terms_are_those_after_the_last_step(conv: Callable, image_tasks: Callable) -> None:
    tasks, backbone = image_tasks(), conv()
    plain = learner(backbone).accumulate(tasks, Objective(), None)
    found = learner(backbone, multi_step=1.0).accumulate(tasks, Objective(), None)
    assert found.keys() == plain.keys()
    for name in ("loss/ce", "student/accuracy"):
        torch.testing.assert_close(found[name], plain[name])
    assert not torch.allclose(found["loss"], plain["loss"])


def test_the_end_of_annealing_is_plain(conv: Callable, image_tasks: Callable) -> None:
    """To the last bit; and before training begins the settings are as at its beginning."""
    tasks, backbone = image_tasks(), conv()
    plain = gradients(learner(backbone), tasks)
    first = gradients(learner(backbone, first_order=True), tasks)
    annealed = learner(backbone, multi_step=0.25, first_order_share=0.5)
    assert annealed.outer is not unrolled
    assert annealed.first_order
    annealed.begin(25, 100)
    assert all(torch.equal(g, first[n]) for n, g in gradients(annealed, tasks).items())
    annealed.begin(50, 100)
    assert annealed.outer is unrolled
    assert all(torch.equal(g, plain[n]) for n, g in gradients(annealed, tasks).items())
    assert not torch.allclose(first["backbone.conv2.weight"], plain["backbone.conv2.weight"])


def test_with_steps_computed_again(conv: Callable, image_tasks: Callable) -> None:
    tasks, backbone = image_tasks(), conv()
    kept = gradients(learner(backbone, multi_step=1.0), tasks)
    again = gradients(learner(backbone, multi_step=1.0, checkpoint_steps=2), tasks)
    for name, gradient in kept.items():
        torch.testing.assert_close(again[name], gradient, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"multi_step": 1.5}, "multi_step=1.5.*type 1"),
        ({"first_order_share": -0.1}, "first_order_share=-0.1.*type 0"),
        ({"first_order_share": 0.5, "first_order": True}, "first_order=false"),
    ],
)
def test_refuses(settings: dict, words: str, conv: Callable) -> None:
    with pytest.raises(UserError, match=words):
        learner(conv(), **settings)


def test_refuses_where_there_is_no_query_loss(conv: Callable) -> None:
    with pytest.raises(UserError, match="multi_step=0"):
        Reptile(conv(), 3, adaptation=Adaptation(multi_step=0.5))
