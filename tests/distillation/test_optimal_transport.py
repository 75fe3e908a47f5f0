"""Transport between predictions against closed forms, the primal problem and finite differences."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from metakd.distillation.divergences import half_l1
from metakd.distillation.optimal_transport import (
    entropic_transport,
    prototype_cost,
    scaled_divergence,
    sinkhorn_divergence,
    zero_one_cost,
)

TEACHER = torch.tensor([0.1, 0.2, 0.6, 0.05, 0.05], dtype=torch.float64)
STUDENT = torch.tensor([0.15, 0.1, 0.7, 0.03, 0.02], dtype=torch.float64)


def _logits(*shape: int, seed: int = 0, scale: float = 2.0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*shape, generator=draw, dtype=torch.float64)


def _cost(classes: int = 5) -> Tensor:
    return prototype_cost(_logits(classes, 3, seed=7))


def _primal(p: Tensor, q: Tensor, cost: Tensor, epsilon: float, rounds: int = 3000) -> Tensor:
    """OT_ε from the plan itself: scalings in the plain domain, value <P, C> + ε KL(P || p qᵀ)."""
    kernel = p[:, None] * q[None] * torch.exp(-cost / epsilon)
    v = torch.ones_like(q)
    for _ in range(rounds):
        u = p / (kernel @ v)
        v = q / (kernel.T @ u)
    plan = u[:, None] * kernel * v
    torch.testing.assert_close(plan.sum(1), p, atol=1e-9, rtol=0)
    return (plan * cost).sum() + epsilon * (plan * (plan / (p[:, None] * q)).log()).sum()


@pytest.mark.parametrize("epsilon", [1.0, 0.2])
def test_value_is_that_of_the_primal_problem(epsilon: float) -> None:
    p, q, cost = TEACHER, _logits(5).softmax(-1), _cost()
    expected = _primal(p, q, cost, epsilon)
    torch.testing.assert_close(entropic_transport(p, q, cost, epsilon), expected)
    debiased = expected - 0.5 * (_primal(p, p, cost, epsilon) + _primal(q, q, cost, epsilon))
    torch.testing.assert_close(sinkhorn_divergence(p, q, cost, epsilon=epsilon), debiased)


def test_two_classes_by_hand() -> None:
    # The plan [[a, ½ - a], [½ - a, a]] of two uniform sides under a 0/1 cost is smallest at
    # a = ½ / (1 + e^(-1/ε)), where OT_ε = -ε log((1 + e^(-1/ε)) / 2).
    half, epsilon = torch.full((2,), 0.5, dtype=torch.float64), 0.3
    found = entropic_transport(half, half, zero_one_cost(2, half), epsilon)
    by_hand = -epsilon * torch.log((1 + torch.exp(torch.tensor(-1 / epsilon).double())) / 2)
    torch.testing.assert_close(found, by_hand)
    # All mass has to move from one class to the other: no freedom, no bias.
    one, other = torch.eye(2, dtype=torch.float64)
    assert sinkhorn_divergence(one, other, epsilon=epsilon).item() == pytest.approx(1.0)


def test_worked_example_is_half_l1_in_the_limit() -> None:
    found = [sinkhorn_divergence(TEACHER, STUDENT, epsilon=e).item() for e in (0.1, 0.02, 0.005)]
    assert found == sorted(found)
    assert found[-1] == pytest.approx(0.15, abs=0.005)
    finest = sinkhorn_divergence(TEACHER, STUDENT, epsilon=1e-4).item()
    assert finest == pytest.approx(0.15, abs=1e-4)


def test_many_are_half_l1_in_the_limit() -> None:
    teacher, student = _logits(4, 6, 5), _logits(4, 6, 5, seed=1)
    found = sinkhorn_divergence(teacher.softmax(-1), student.softmax(-1), epsilon=1e-3)
    assert found.shape == (4, 6)
    torch.testing.assert_close(found, half_l1(teacher, student), atol=3e-3, rtol=0)


def test_classes_on_a_line() -> None:
    # Under the cost |i - j| transport is the L1 distance of the cumulative distributions.
    place = torch.arange(5, dtype=torch.float64)
    cost = (place[:, None] - place).abs()
    p, q = _logits(20, 5).softmax(-1), _logits(20, 5, seed=1).softmax(-1)
    expected = (p.cumsum(-1) - q.cumsum(-1)).abs().sum(-1)
    found = sinkhorn_divergence(p, q, cost, epsilon=1e-3)
    torch.testing.assert_close(found, expected, atol=5e-3, rtol=0)
    far, near = torch.eye(5, dtype=torch.float64)[[4, 1]]
    here = torch.eye(5, dtype=torch.float64)[0]
    assert sinkhorn_divergence(here, far, cost) > 3 * sinkhorn_divergence(here, near, cost)


@pytest.mark.parametrize("epsilon", [1.0, 0.1, 0.01])
@pytest.mark.parametrize("which", ["0/1", "prototypes"])
def test_zero_at_equality_positive_elsewhere_and_symmetric(epsilon: float, which: str) -> None:
    cost = None if which == "0/1" else _cost()
    p, q = _logits(30, 5).softmax(-1), _logits(30, 5, seed=1).softmax(-1)
    there = sinkhorn_divergence(p, q, cost, epsilon=epsilon)
    back = sinkhorn_divergence(q, p, cost, epsilon=epsilon)
    assert (there > 1e-4).all()
    torch.testing.assert_close(there, back, atol=1e-9, rtol=1e-9)
    assert sinkhorn_divergence(p, p, cost, epsilon=epsilon).abs().max() < 1e-10
    # Plain entropic transport is not smallest at equality: what the debiasing is for.
    ground = zero_one_cost(5, p) if cost is None else cost
    if epsilon == 1.0:
        sharp = (3.0 * p.log()).softmax(-1)
        plain = entropic_transport(p, sharp, ground, epsilon)
        assert (plain < entropic_transport(p, p, ground, epsilon)).any()


@pytest.mark.parametrize("epsilon", [0.5, 0.1, 0.03])
def test_gradients_both_ways_against_finite_differences(epsilon: float) -> None:
    teacher, student = _logits(2, 4).requires_grad_(), _logits(2, 4, seed=1).requires_grad_()
    cost = _cost(4).requires_grad_()

    def value(t: Tensor, s: Tensor, c: Tensor) -> Tensor:
        c = 0.5 * (c + c.T)
        return sinkhorn_divergence(t.softmax(-1), s.softmax(-1), c, epsilon=epsilon)

    assert torch.autograd.gradcheck(value, (teacher, student, cost), eps=1e-5, atol=1e-6)


def test_descending_it_makes_the_student_the_teacher() -> None:
    teacher, student = _logits(8, 5).softmax(-1), _logits(8, 5, seed=1).requires_grad_()
    optimizer = torch.optim.Adam([student], 0.4)
    before = sinkhorn_divergence(teacher, student.softmax(-1)).mean()
    for _ in range(40):
        optimizer.zero_grad()
        after = sinkhorn_divergence(teacher, student.softmax(-1)).mean()
        after.backward()
        optimizer.step()
    assert after < 0.05 * before


def test_single_precision_and_hard_predictions() -> None:
    wide = [_logits(50, 5, seed=i, scale=8.0) for i in (0, 1)]
    exact = sinkhorn_divergence(*(x.softmax(-1) for x in wide), epsilon=0.05)
    narrow = [x.float().requires_grad_() for x in wide]
    found = sinkhorn_divergence(*(x.softmax(-1) for x in narrow), epsilon=0.05)
    torch.testing.assert_close(found.double(), exact, atol=2e-5, rtol=0)
    found.sum().backward()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in narrow)
    hard = torch.eye(5)[:3].requires_grad_()
    torch.testing.assert_close(
        sinkhorn_divergence(hard, torch.eye(5)[2:]), torch.tensor([1.0, 1, 1])
    )
    half = sinkhorn_divergence(*(x.softmax(-1).half() for x in narrow))
    assert half.dtype == torch.float32


def test_rounds_are_bounded_by_the_setting() -> None:
    p, q = _logits(30, 5).softmax(-1), _logits(30, 5, seed=1).softmax(-1)
    full = sinkhorn_divergence(p, q, epsilon=0.01)
    assert (sinkhorn_divergence(p, q, epsilon=0.01, iterations=1) - full).abs().max() > 1e-9
    torch.testing.assert_close(sinkhorn_divergence(p, q, epsilon=0.01, iterations=400), full)


def test_a_cost_for_each_task() -> None:
    p, q = _logits(3, 6, 4).softmax(-1), _logits(3, 6, 4, seed=1).softmax(-1)
    costs = prototype_cost(_logits(3, 4, 7, seed=2))
    found = sinkhorn_divergence(p, q, costs.unsqueeze(1))
    for i in range(3):
        torch.testing.assert_close(found[i], sinkhorn_divergence(p[i], q[i], costs[i]))


def test_prototype_cost_by_hand() -> None:
    prototypes = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    # Squares 1, 4, 5: their mean is 10/3.
    expected = torch.tensor([[0.0, 0.3, 1.2], [0.3, 0.0, 1.5], [1.2, 1.5, 0.0]])
    torch.testing.assert_close(prototype_cost(prototypes), expected)
    torch.testing.assert_close(prototype_cost(40 * prototypes + 3), expected, atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="two of them"):
        prototype_cost(torch.zeros(1, 3))


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        sinkhorn_divergence(TEACHER, STUDENT[:4])
    with pytest.raises(ValueError, match="above 0"):
        sinkhorn_divergence(TEACHER, STUDENT, epsilon=0.0)


@pytest.mark.parametrize("size", [2, 8])
def test_the_scaled_form_is_the_same_divergence(size: int) -> None:
    torch.manual_seed(0)
    p, q = (torch.randn(2, 3, 7, dtype=torch.float64) * 3).softmax(-1).requires_grad_()
    cost = prototype_cost(torch.randn(7, size, dtype=torch.float64))
    found = scaled_divergence(p, q, cost)
    expected = sinkhorn_divergence(p, q, cost)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)
    converged = scaled_divergence(p, q, cost, iterations=2000)
    slopes, wanted = (torch.autograd.grad(x.sum(), (p, q)) for x in (converged, expected))
    for a, b in zip(slopes, wanted, strict=True):
        torch.testing.assert_close(a - a.mean(-1, True), b - b.mean(-1, True), rtol=0.01, atol=1e-4)
    costs = torch.stack([cost, cost.flip(0, 1) * 0.5])
    tasks = scaled_divergence(p.expand(2, 3, 7), q.expand(2, 3, 7), costs)
    torch.testing.assert_close(tasks[0], found)
    torch.testing.assert_close(tasks[1], scaled_divergence(p, q, costs[1]))
