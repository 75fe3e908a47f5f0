"""Debiased entropic transport between predictive distributions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from metakd.distillation.optimal_transport import (
    entropic_transport,
    prototype_cost,
    sinkhorn_divergence,
    zero_one_cost,
)

P = torch.tensor([0.1, 0.2, 0.6, 0.05, 0.05], dtype=torch.float64)
Q = torch.tensor([0.15, 0.1, 0.7, 0.03, 0.02], dtype=torch.float64)


def random_pair(seed: int, count: int = 6) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    p, q = (torch.randn(count, 5, generator=g, dtype=torch.float64).softmax(-1) for _ in range(2))
    points = torch.randn(5, 3, generator=g, dtype=torch.float64)
    return p, q, prototype_cost(points)


def by_scaling(p: np.ndarray, q: np.ndarray, cost: np.ndarray, epsilon: float) -> float:
    """Sinkhorn's matrix scaling in plain numpy, run long: <P, C> + ε KL(P || p qᵀ)."""
    kernel = np.outer(p, q) * np.exp(-cost / epsilon)
    u, v = np.ones_like(p), np.ones_like(q)
    for _ in range(20_000):
        u = p / (kernel @ v)
        v = q / (kernel.T @ u)
    plan = u[:, None] * kernel * v
    return float((plan * cost).sum() + epsilon * (plan * np.log(plan / np.outer(p, q))).sum())


@pytest.mark.parametrize("epsilon", [0.1, 0.5])
def test_equals_matrix_scaling(epsilon: float) -> None:
    p, q, cost = random_pair(0)
    found = entropic_transport(p, q, cost, epsilon, iterations=3000)
    for i in range(len(p)):
        expected = by_scaling(p[i].numpy(), q[i].numpy(), cost.numpy(), epsilon)
        assert float(found[i]) == pytest.approx(expected, abs=1e-5)


def test_worked_example() -> None:
    """Half the L1 distance is 0.15; the divergence tends to it as ε falls."""
    values = [
        float(sinkhorn_divergence(P, Q, epsilon=e, iterations=5000)) for e in (0.1, 0.03, 0.01)
    ]
    assert values[-1] == pytest.approx(0.15, abs=0.005)
    assert abs(values[0] - 0.15) > abs(values[1] - 0.15) > abs(values[2] - 0.15)


@pytest.mark.parametrize("kind", ["0/1", "prototypes"])
def test_is_a_divergence(kind: str) -> None:
    p, q, cost = random_pair(1)
    given = None if kind == "0/1" else cost
    found = sinkhorn_divergence(p, q, given)
    assert (found > 1e-4).all()
    torch.testing.assert_close(found, sinkhorn_divergence(q, p, given), rtol=1e-4, atol=1e-6)
    assert sinkhorn_divergence(p, p, given).abs().max() < 1e-12


@pytest.mark.parametrize("kind", ["0/1", "prototypes"])
def test_gradient_by_finite_differences(kind: str) -> None:
    """Through both sides' softmax, as the game uses it."""
    _, _, cost = random_pair(2)
    given = None if kind == "0/1" else cost
    g = torch.Generator().manual_seed(3)
    a, b = (torch.randn(4, 5, generator=g, dtype=torch.float64) for _ in range(2))

    def value(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return sinkhorn_divergence(x.softmax(-1), y.softmax(-1), given, iterations=400).sum()

    for first in (True, False):
        moving = (a if first else b).clone().requires_grad_()
        value(*((moving, b) if first else (a, moving))).backward()
        direction = torch.randn(4, 5, generator=g, dtype=torch.float64)
        ends = []
        for sign in (1, -1):
            other = moving + sign * 1e-5 * direction
            ends.append(value(*((other, b) if first else (a, other))))
        slope = ((ends[0] - ends[1]) / 2e-5).detach()
        torch.testing.assert_close((moving.grad * direction).sum(), slope, rtol=1e-5, atol=1e-8)


def test_converged_at_the_default() -> None:
    p, q, cost = random_pair(4, 50)
    for given in (None, cost):
        few = sinkhorn_divergence(p, q, given, epsilon=0.1)
        many = sinkhorn_divergence(p, q, given, epsilon=0.1, iterations=5000)
        assert (few - many).abs().max() < 2e-3 * many.max()


def test_confusing_near_classes_is_cheaper() -> None:
    points = torch.tensor([[0.0], [0.1], [5.0]], dtype=torch.float64)
    cost = prototype_cost(points)
    one = torch.tensor([0.98, 0.01, 0.01], dtype=torch.float64)
    near, far = one[[1, 0, 2]], one[[1, 2, 0]]
    assert sinkhorn_divergence(one, near, cost) < 0.1 * sinkhorn_divergence(one, far, cost)


def test_costs_by_hand() -> None:
    """Squared distances 1, 4, 9: mean over ordered pairs 14/3."""
    cost = prototype_cost(torch.tensor([[0.0], [1.0], [3.0]]))
    expected = torch.tensor([[0.0, 1.0, 9.0], [1.0, 0.0, 4.0], [9.0, 4.0, 0.0]]) * 3 / 14
    torch.testing.assert_close(cost, expected)
    assert zero_one_cost(2, P).tolist() == [[0.0, 1.0], [1.0, 0.0]]
