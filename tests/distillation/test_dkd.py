"""Decoupled soft targets: their identity with KL, a value by hand, gradients, refusals."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from metakd.distillation.divergences import kl
from metakd.distillation.dkd import DKD, decoupled
from metakd.distillation.objective import Answer
from metakd.errors import UserError
from metakd.models.network import Prediction


def test_the_parts_make_up_the_divergence() -> None:
    torch.manual_seed(0)
    teacher, student = 3 * torch.randn(2, 6, 5, dtype=torch.float64), torch.randn(2, 6, 5).double()
    targets = torch.randint(5, (2, 6))
    tckd, nckd = decoupled(teacher, student, targets, 2.0)
    others = 1 - torch.softmax(teacher / 2, -1).gather(-1, targets[..., None])[..., 0]
    torch.testing.assert_close(tckd + others * nckd, kl(teacher, student, 2.0))


def test_values_by_hand() -> None:
    # Teacher 1/2, 1/4, 1/4; student 1/4, 1/2, 1/4; the first class is the target.
    teacher = torch.tensor([[0.5, 0.25, 0.25]], dtype=torch.float64).log()
    student = torch.tensor([[0.25, 0.5, 0.25]], dtype=torch.float64).log()
    tckd, nckd = decoupled(teacher, student, torch.tensor([0]), 1.0)
    assert float(tckd) == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(0.5 / 0.75))
    # Among the others: 1/2, 1/2 against 2/3, 1/3.
    assert float(nckd) == pytest.approx(0.5 * math.log(0.75) + 0.5 * math.log(1.5))


def test_terms_and_weights() -> None:
    torch.manual_seed(0)
    student, answer = Prediction(torch.randn(4, 3).double()), Answer(torch.randn(4, 3).double())
    targets = torch.tensor([0, 1, 2, 0])
    terms = DKD(ce_weight=0.5, kd_weight=2.0, tckd_weight=3.0, nckd_weight=4.0, temperature=2.0)(
        student, targets, answer
    )
    tckd, nckd = (
        4 * part.mean() for part in decoupled(answer.logits, student.logits, targets, 2.0)
    )  # type: ignore[arg-type]
    torch.testing.assert_close(terms["loss/tckd"], tckd)
    torch.testing.assert_close(terms["loss/nckd"], nckd)
    ce = F.cross_entropy(student.logits, targets)
    torch.testing.assert_close(terms["loss"], 0.5 * ce + 2 * (3 * tckd + 4 * nckd))
    assert set(DKD(nckd_weight=0.0)(student, targets, answer)) == {"loss", "loss/ce", "loss/tckd"}
    off = DKD(kd_weight=0.0)
    assert off.reads == frozenset()
    assert set(off(student, targets, Answer())) == {"loss", "loss/ce"}
    assert set(DKD()(student, targets, None)) == {"loss", "loss/ce"}


def test_it_is_twice_differentiable() -> None:
    torch.manual_seed(0)
    teacher = torch.randn(3, 4, dtype=torch.float64)
    student = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([0, 3, 1])

    def loss(s: torch.Tensor) -> torch.Tensor:
        return sum(part.mean() for part in decoupled(teacher, s, targets, 2.0))  # type: ignore[return-value]

    assert torch.autograd.gradcheck(loss, (student,))
    assert torch.autograd.gradgradcheck(loss, (student,))


def test_two_classes_have_no_others_to_tell_apart() -> None:
    tckd, nckd = decoupled(torch.randn(5, 2), torch.randn(5, 2), torch.zeros(5).long(), 1.0)
    assert torch.equal(nckd, torch.zeros(5))
    assert bool(tckd.isfinite().all())


def test_what_is_refused() -> None:
    with pytest.raises(UserError, match=r"distill\.options\.nckd_weight=-1"):
        DKD(nckd_weight=-1.0)
    with pytest.raises(UserError, match="all weights of distill=dkd are 0"):
        DKD(ce_weight=0.0, kd_weight=0.0)
    answer = Answer(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="these targets are numbers"):
        DKD()(Prediction(torch.zeros(2, 3)), torch.zeros(2, 3), answer)
    with pytest.raises(ValueError, match="its answer has none"):
        DKD()(Prediction(torch.zeros(2, 3)), torch.zeros(2).long(), Answer())
