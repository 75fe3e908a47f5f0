"""Optimisers and schedules against hand-worked values."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from torch import nn

from metakd.adaptation.lean_optimizers import lean
from metakd.stages.optimization import Optimization, make_optimizer
from metakd.stages.training import complaint


@pytest.mark.parametrize(
    ("schedule", "step", "expected"),
    [
        ("constant", 99, 0.2),
        ("linear", 0, 0.2),
        ("linear", 75, 0.05),
        ("cosine", 0, 0.2),
        ("cosine", 50, 0.1),
        ("cosine", 75, 0.1 * (1 - math.sqrt(0.5))),
        ("one_cycle", 0, 0.02),
        ("one_cycle", 25, 0.2),
        ("one_cycle", 100, 0.0),
        ("step", 39, 0.2),
        ("step", 40, 0.1),
        ("step", 99, 0.05),
        ("milestones", 69, 0.2),
        ("milestones", 70, 0.02),
        ("milestones", 99, 0.002),
    ],
)
def test_rate(schedule: str, step: int, expected: float) -> None:
    how = Optimization(lr=0.2, schedule=schedule, halve_every=40, milestones=(0.7, 0.9))
    assert how.rate(step, 100) == pytest.approx(expected, abs=1e-12)


def test_milestones_are_passed_at_the_published_epochs() -> None:
    """÷ 10 at 150, 180 and 210 of 240 epochs of 782 updates."""
    how = Optimization(lr=1.0, schedule="milestones", milestones=[0.625, 0.75, 0.875])
    rates = {epoch: how.rate(782 * epoch, 782 * 240) for epoch in (149, 150, 180, 210, 239)}
    assert rates == pytest.approx({149: 1.0, 150: 0.1, 180: 0.01, 210: 0.001, 239: 0.001})
    assert how.rate(782 * 150 - 1, 782 * 240) == 1.0
    halves = Optimization(lr=1.0, schedule="milestones", milestones=[0.5], milestone_factor=0.5)
    assert halves.rate(5, 10) == 0.5


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown schedule 'cosin'"):
        Optimization(schedule="cosin").rate(0, 1)
    with pytest.raises(ValueError, match="unknown optimizer 'adan'"):
        make_optimizer([nn.Linear(1, 1)], Optimization(optimizer="adan"))


def test_plain_sgd_subtracts_rate_times_gradient() -> None:
    layer = nn.Linear(1, 1, bias=False)
    layer.weight.data.fill_(1.0)
    optimizer = make_optimizer([layer], Optimization(optimizer="plain_sgd", lr=0.5))
    for _ in range(2):
        layer.weight.grad = torch.full((1, 1), 0.2)
        optimizer.step()
    assert layer.weight.item() == pytest.approx(0.8)


def test_sgd_has_nesterov_momentum() -> None:
    layer = nn.Linear(1, 1, bias=False)
    layer.weight.data.fill_(1.0)
    optimizer = make_optimizer([layer], Optimization(optimizer="sgd", lr=0.1))
    layer.weight.grad = torch.ones(1, 1)
    optimizer.step()
    assert layer.weight.item() == pytest.approx(1 - 0.1 * 1.9)


@pytest.mark.parametrize("name", ["sgd", "plain_sgd", "adam", "adamw"])
def test_weight_decay_acts_on_weights_alone(name: str) -> None:
    layer = nn.Linear(2, 2)
    nn.init.ones_(layer.weight)
    nn.init.ones_(layer.bias)
    optimizer = make_optimizer([layer], Optimization(optimizer=name, lr=0.1, weight_decay=0.5))
    layer.weight.grad, layer.bias.grad = torch.zeros(2, 2), torch.zeros(2)
    optimizer.step()
    assert (layer.weight < 1).all()
    assert torch.equal(layer.bias, torch.ones(2))


def test_frozen_parameters_are_left_out() -> None:
    layer = nn.Linear(2, 2)
    layer.bias.requires_grad_(False)
    optimizer = make_optimizer([layer], Optimization())
    assert sum(len(g["params"]) for g in optimizer.param_groups) == 1


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_lean_optimisers_compute_what_torch_s_own_do(kind: type[torch.optim.Optimizer]) -> None:
    start = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    ends, states = [], []
    for used in (kind, lean(kind)):
        values = start.clone().requires_grad_(True)
        extra = {"momentum": 0.9, "nesterov": True} if kind is torch.optim.SGD else {}
        optimizer = used([{"params": [values], "weight_decay": 0.1}], lr=0.05, **extra)
        for step in range(3):
            if step == 2:  # gone on with from a saved state
                state, optimizer = optimizer.state_dict(), used([values], lr=1.0)
                optimizer.load_state_dict(state)
            optimizer.zero_grad(set_to_none=True)
            (values.square() * (step + 1)).sum().backward()
            optimizer.step()
            assert not values.grad.requires_grad
        ends.append(values.detach())
        states.append(str(optimizer.state_dict()))
    assert torch.equal(*ends)
    assert not torch.equal(ends[0], start)
    assert states[0] == states[1]


def test_no_compiler_is_imported_to_train_and_to_count() -> None:
    """It takes 2 s and 150 MB; `torch.optim` and the counter of operations would import it."""
    code = """
import sys, torch
from torch import nn
from metakd.models.cost import cost
import metakd.pipeline
from metakd.stages.optimization import Optimization, make_optimizer
from metakd.stages.training import complaint

network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
for name in ("adam", "adamw", "sgd", "plain_sgd"):
    optimizer = make_optimizer([network], Optimization(optimizer=name))
    optimizer.zero_grad()
    network(torch.ones(3, 4)).sum().backward()
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
torch.set_deterministic_debug_mode("error")
assert cost(network, (1, 2, 2), torch.device("cpu"))["macs"] == 8
assert "torch._dynamo" not in sys.modules, "the compiler was imported"
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_finite_gradient_whose_square_is_not_is_no_complaint() -> None:
    layer = nn.Linear(2, 1, bias=False)
    layer.weight.grad = torch.tensor([[1e30, 1.0]])
    assert complaint(torch.tensor(1.0), {"layer": layer}) is None
    layer.weight.grad = torch.tensor([[1e30, math.nan]])
    assert complaint(torch.tensor(1.0), {"layer": layer}) == (
        "the gradient of layer.weight is not finite"
    )
