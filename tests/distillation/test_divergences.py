"""KL, half-L1 and similarity against worked numbers and independent references."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from metakd.distillation.divergences import (
    half_l1,
    kd_loss,
    kl,
    similarity_loss,
    standardised,
    unit,
)

# The worked example: log-probabilities are logits.
TEACHER = torch.tensor([0.1, 0.2, 0.6, 0.05, 0.05], dtype=torch.float64).log()
STUDENT = torch.tensor([0.15, 0.1, 0.7, 0.03, 0.02], dtype=torch.float64).log()


def _logits(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_worked_example() -> None:
    assert kl(TEACHER, STUDENT).item() == pytest.approx(0.0769, abs=5e-5)
    assert half_l1(TEACHER, STUDENT).item() == pytest.approx(0.15, abs=1e-12)


def test_kl_by_hand() -> None:
    p, q = [0.5, 0.5], [0.9, 0.1]
    by_hand = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    logits = [torch.tensor(x, dtype=torch.float64).log() for x in (p, q)]
    assert kl(*logits).item() == pytest.approx(by_hand, rel=1e-12)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_kl_is_that_of_torch(temperature: float) -> None:
    teacher, student = _logits(3, 7, 5), _logits(3, 7, 5, seed=1)
    expected = F.kl_div(
        F.log_softmax(student / temperature, -1), F.softmax(teacher / temperature, -1),
        reduction="none",
    ).sum(-1)  # fmt: skip
    torch.testing.assert_close(kl(teacher, student, temperature), expected)
    assert kl(teacher, student).shape == (3, 7)


def test_kl_is_zero_at_equality_only_and_has_a_direction() -> None:
    teacher, student = _logits(9, 5), _logits(9, 5, seed=1)
    assert kl(teacher, teacher).abs().max() < 1e-15
    assert (kl(teacher, student) > 1e-3).all()
    assert not torch.allclose(kl(teacher, student), kl(student, teacher))


def test_invariances() -> None:
    teacher, student = _logits(9, 5), _logits(9, 5, seed=1)
    order = torch.tensor([3, 1, 4, 0, 2])
    for divergence in (kl, half_l1):
        plain = divergence(teacher, student)
        torch.testing.assert_close(plain, divergence(teacher + 3.0, student - 100.0))
        torch.testing.assert_close(plain, divergence(teacher[:, order], student[:, order]))


def test_half_l1_is_a_distance_between_0_and_1() -> None:
    a, b, c = (_logits(20, 5, seed=s) * 3 for s in range(3))
    torch.testing.assert_close(half_l1(a, b), half_l1(b, a))
    assert (half_l1(a, c) <= half_l1(a, b) + half_l1(b, c) + 1e-12).all()
    ends = torch.tensor([[100.0, 0.0], [0.0, 100.0]])
    assert half_l1(ends[0], ends[1]).item() == pytest.approx(1.0)


def test_temperature_squared_keeps_the_gradient_scale() -> None:
    """At a high temperature the gradient tends to (z_s - z_t) / classes for centred logits."""
    classes = 5
    teacher, student = (
        x - x.mean(-1, keepdim=True) for x in (_logits(1, 5), _logits(1, 5, seed=1))
    )
    student.requires_grad_()
    gradients = {}
    for temperature in (100.0, 1000.0):
        (with_factor,) = torch.autograd.grad(kd_loss(teacher, student, temperature), student)
        (without,) = torch.autograd.grad(kl(teacher, student, temperature).mean(), student)
        torch.testing.assert_close(with_factor, without * temperature**2)
        gradients[temperature] = with_factor
    torch.testing.assert_close(
        gradients[1000.0], (student - teacher).detach() / classes, rtol=0.01, atol=1e-3
    )
    torch.testing.assert_close(gradients[100.0], gradients[1000.0], rtol=0.05, atol=5e-3)


def test_first_and_second_derivatives() -> None:
    teacher, student = _logits(2, 3, 4), _logits(2, 3, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: kd_loss(teacher, s, 3.0), (student,))
    assert torch.autograd.gradgradcheck(lambda s: kd_loss(teacher, s, 3.0), (student,))
    assert torch.autograd.gradcheck(lambda s: similarity_loss(s, teacher), (student,))
    assert torch.autograd.gradgradcheck(lambda s: similarity_loss(s, teacher), (student,))


def test_half_precision_is_widened() -> None:
    teacher, student = TEACHER.bfloat16(), STUDENT.bfloat16()
    assert kl(teacher, student).dtype == torch.float32
    torch.testing.assert_close(kl(teacher, student), kl(teacher.float(), student.float()))


def test_shapes_that_would_broadcast_are_refused() -> None:
    for divergence in (kl, half_l1, kd_loss):
        with pytest.raises(ValueError, match="differ in shape"):
            divergence(_logits(4, 5), _logits(1, 5))


def test_similarity_by_hand() -> None:
    """Student's vectors at 90 degrees, teacher's at 60: off-diagonal 0 and 0.5."""
    student = torch.tensor([[3.0, 0.0], [0.0, 0.5]], dtype=torch.float64)
    teacher = torch.tensor([[1.0, 0.0], [1.0, math.sqrt(3.0)]], dtype=torch.float64)
    # Of four entries the two on the diagonal agree.
    assert similarity_loss(student, teacher).item() == pytest.approx(2 * 0.25 / 4)


def test_similarity_ignores_rotation_scale_and_order() -> None:
    student, teacher = _logits(2, 6, 4), _logits(2, 6, 8, seed=1)
    rotation = torch.linalg.qr(_logits(4, 4, seed=2)).Q
    order = torch.tensor([5, 2, 0, 1, 4, 3])
    plain = similarity_loss(student, teacher)
    torch.testing.assert_close(plain, similarity_loss(7.0 * student @ rotation, 0.1 * teacher))
    torch.testing.assert_close(plain, similarity_loss(student[:, order], teacher[:, order]))
    assert not torch.allclose(plain, similarity_loss(student[:, order], teacher))


def test_an_embedding_of_length_0_has_finite_gradients() -> None:
    student = torch.zeros(3, 4, requires_grad=True)
    similarity_loss(student, torch.randn(3, 4)).backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()
    assert unit(student).abs().max() == 0.0


def test_standardised_logits_by_hand() -> None:
    # Mean 4, squared deviations 4, 0, 4: variance 8/3.
    found = standardised(torch.tensor([[2.0, 4.0, 6.0]], dtype=torch.float64))
    expected = torch.tensor([[-2.0, 0.0, 2.0]], dtype=torch.float64) / (8 / 3) ** 0.5
    torch.testing.assert_close(found, expected)
    assert float(standardised(torch.ones(1, 3)).abs().max()) == 0.0  # no spread, no infinity
