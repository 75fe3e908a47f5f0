"""`distill=kd_convex`: the two weights sum to 1."""

from __future__ import annotations

import pytest
import torch

from metakd.distillation.kd import KD
from metakd.distillation.kd_convex import KDConvex
from metakd.distillation.objective import Answer
from metakd.errors import UserError
from metakd.models.network import Prediction

LABELS = torch.tensor([0, 1, 2])


@pytest.mark.parametrize("alpha", [0.1, 0.5, 0.9])
def test_mixture(alpha: float) -> None:
    student, answer = Prediction(torch.randn(3, 5)), Answer(torch.randn(3, 5))
    terms = KDConvex(kd_weight=alpha, temperature=2.0)(student, LABELS, answer)
    additive = KD(temperature=2.0)(student, LABELS, answer)
    assert terms["loss/ce"] == additive["loss/ce"]
    assert terms["loss/kd"] == additive["loss/kd"]
    expected = alpha * additive["loss/kd"] + (1 - alpha) * additive["loss/ce"]
    torch.testing.assert_close(terms["loss"], expected)


def test_both_ends() -> None:
    student, answer = Prediction(torch.randn(3, 5)), Answer(torch.randn(3, 5))
    assert set(KDConvex(kd_weight=0.0)(student, LABELS, Answer())) == {"loss", "loss/ce"}
    assert set(KDConvex(kd_weight=1.0)(student, LABELS, answer)) == {"loss", "loss/kd"}


@pytest.mark.parametrize("alpha", [-0.1, 1.5, float("nan")])
def test_alpha_outside_0_to_1_is_refused(alpha: float) -> None:
    with pytest.raises(UserError, match=r"distill\.kd_weight=.*between 0 and 1"):
        KDConvex(kd_weight=alpha)
