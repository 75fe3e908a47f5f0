"""Learned rates: worked steps, gradients against finite differences, equal to one rate at first."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

from metakd.adaptation.update_rules import LayerStepRates
from metakd.algorithms.anil import ANIL
from metakd.algorithms.boil import BOIL
from metakd.algorithms.maml import MAML
from metakd.distillation.objective import Objective
from metakd.errors import UserError
from metakd.registry import build

pytestmark = pytest.mark.usefixtures("two_workers")


def test_worked_steps() -> None:
    """A rate for each layer and step; steps beyond the last use its rate."""
    rule = LayerStepRates(0.1, 2)
    rule.attach({name: torch.zeros(3) for name in ("a.b.weight", "a.b.bias", "c.weight")})
    assert {n: p.tolist() for n, p in rule.named_parameters()} == {
        "rates.a/b": [0.1, 0.1],
        "rates.c": [0.1, 0.1],
    }
    with torch.no_grad():
        rule.rates["a/b"].copy_(torch.tensor([0.5, 0.25]))
        rule.rates["c"].copy_(torch.tensor([2.0, -1.0]))
    values = {n: torch.tensor(1.0) for n in ("a.b.weight", "a.b.bias", "c.weight")}
    slopes = {n: torch.tensor(s) for n, s in zip(values, (1.0, 2.0, 4.0), strict=True)}
    moved = [rule(step, values, slopes, torch.tensor(0.0), None)[0] for step in range(4)]
    assert [[v.item() for v in m.values()] for m in moved] == [
        [0.5, 0.0, -7.0],
        [0.75, 0.5, 5.0],
        [0.75, 0.5, 5.0],
        [0.75, 0.5, 5.0],
    ]


@pytest.mark.parametrize("kind", [MAML, ANIL, BOIL])
@pytest.mark.parametrize("execution", ["loop", "threads", "batched"])
@pytest.mark.parametrize("first_order", [False, True], ids=["second", "first"])
def test_begins_as_one_rate(
    kind: type, execution: str, first_order: bool, conv: Callable, image_tasks: Callable
) -> None:
    """Same gradients of the network, same predictions also after more steps than in training."""
    tasks, backbone, found = image_tasks(), conv(), []
    for rates in ("none", "per_layer_per_step"):
        torch.manual_seed(3)
        given = {"inner_lr": 0.3, "inner_steps": 3, "execution": execution, "learn_rates": rates}
        options = {**given, "first_order": first_order}
        learner = build(kind, copy.deepcopy(backbone), 3, options=options)
        learner.accumulate(tasks, Objective(), None)
        gradients = {n: p.grad for n, p in learner.network.named_parameters()}
        found.append({**gradients, "predictions": learner.predict(tasks, (0, 3, 5))})
    layers = {name: p.shape for name, p in learner.rule.named_parameters()}
    assert ("rates.network/head" in layers) == (kind is not BOIL)
    assert set(layers.values()) == {(3,)}
    assert len(layers) == {MAML: 5, ANIL: 1, BOIL: 4}[kind]
    assert all(p.grad.abs().min() > 0 for p in learner.rule.parameters())
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize("settings", [{}, {"checkpoint_steps": 1}, {"multi_step": 1.0}])
def test_gradient_equals_finite_differences(
    settings: dict[str, Any], conv: Callable, image_tasks: Callable
) -> None:
    tasks = image_tasks(tasks=2)
    given = {"inner_lr": 0.3, "inner_steps": 3, "learn_rates": "per_layer_per_step", **settings}
    maml = build(MAML, conv(), 3, options={"execution": "loop", **given})
    maml.accumulate(tasks, Objective(), None)
    for name, rates in maml.rule.named_parameters():
        for step in range(3):
            losses = []
            for sign in (1, -1):
                moved = copy.deepcopy(maml)
                with torch.no_grad():
                    moved.rule.get_parameter(name)[step] += sign * 1e-5
                losses.append(moved.accumulate(tasks, Objective(), None)["loss"])
            slope = (losses[0] - losses[1]) / 2e-5
            torch.testing.assert_close(rates.grad[step], slope, rtol=1e-6, atol=1e-8, msg=name)


def test_refuses(conv: Callable) -> None:
    with pytest.raises(UserError, match="Did you mean 'per_layer_per_step'"):
        build(MAML, conv(), 3, options={"learn_rates": "per_layer"})
