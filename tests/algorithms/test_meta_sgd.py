"""Meta-SGD: with constant rates it is MAML; the rates are learned."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch

from metakd.algorithms.maml import MAML
from metakd.algorithms.meta_sgd import LearnedRates, MetaSGD
from metakd.distillation.objective import Objective
from metakd.registry import build
from metakd.stages.optimization import Optimization, make_optimizer


@pytest.mark.parametrize("first_order", [False, True], ids=["second", "first"])
def test_constant_rates_are_maml(
    first_order: bool, conv: Callable, image_tasks: Callable, gradient_of: Callable
) -> None:
    body, tasks = conv(), image_tasks()
    found = []
    for kind in (MAML, MetaSGD):
        torch.manual_seed(0)
        made = build(
            kind,
            copy.deepcopy(body),
            3,
            options={"inner_lr": 0.3, "inner_steps": 2, "first_order": first_order},
        )
        terms = made.accumulate(tasks, Objective(), None)
        found.append((terms["loss"], gradient_of(made.network), made.predict(tasks, (2,))))
    torch.testing.assert_close(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][2], found[1][2])
    for name, gradient in found[0][1].items():
        torch.testing.assert_close(gradient, found[1][1][name], rtol=1e-10, atol=1e-13, msg=name)


def test_a_step_by_hand() -> None:
    rule = LearnedRates(0.1)
    rule.attach({"a.b": torch.tensor([1.0, 2.0])})
    with torch.no_grad():
        rule.rates["a.b"].copy_(torch.tensor([0.5, -1.0]))
    moved, state = rule(
        0,
        {"a.b": torch.tensor([1.0, 2.0])},
        {"a.b": torch.tensor([4.0, 3.0])},
        torch.zeros(()),
        None,
    )
    assert moved["a.b"].tolist() == [-1.0, 5.0]
    assert state is None


def test_weight_decay_spares_the_rates(conv: Callable) -> None:
    made = MetaSGD(conv(), 3)
    optimizer = make_optimizer([made], Optimization(weight_decay=0.1))
    decayed = {id(p) for g in optimizer.param_groups if g["weight_decay"] for p in g["params"]}
    assert decayed
    rates = {id(p) for p in made.rule.parameters()}
    assert rates <= {id(p) for g in optimizer.param_groups for p in g["params"]}
    assert not decayed & rates
    assert id(made.network.head.weight) in decayed
