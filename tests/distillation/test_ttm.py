"""`distill=ttm`: by hand, and what it shares with soft targets."""

from __future__ import annotations

import math

import pytest
import torch

from metakd.distillation.divergences import kl
from metakd.distillation.objective import Answer
from metakd.distillation.ttm import TTM, transformed_matching
from metakd.models.network import Prediction

TEACHER = torch.tensor([[0.64, 0.36]], dtype=torch.float64).log()
STUDENT = torch.tensor([[0.5, 0.5]], dtype=torch.float64).log()


def test_by_hand() -> None:
    # Square roots 0.8 and 0.6, power sum 1.4, transformed 4/7 and 3/7.
    divergence = 4 / 7 * math.log(8 / 7) + 3 / 7 * math.log(6 / 7)
    plain = transformed_matching(TEACHER, STUDENT, 0.5, weighted=False)
    assert plain.item() == pytest.approx(divergence)
    assert transformed_matching(TEACHER, STUDENT, 0.5).item() == pytest.approx(1.4 * divergence)


def test_at_temperature_1_it_is_soft_targets() -> None:
    torch.manual_seed(0)
    teacher, student = torch.randn(2, 4, 5, dtype=torch.float64)
    torch.testing.assert_close(transformed_matching(teacher, student, 1.0), kl(teacher, student))


def test_terms() -> None:
    labels, student, answer = torch.tensor([0]), Prediction(STUDENT), Answer(TEACHER)
    terms = TTM(ce_weight=0.5, temperature=2.0, ttm_weight=10.0)(student, labels, answer)
    expected = transformed_matching(TEACHER, STUDENT, 0.5).item()
    assert terms["loss/ttm"].item() == pytest.approx(expected)
    assert terms["loss"].item() == pytest.approx(0.5 * math.log(2) + 10 * expected)
    plain = TTM(temperature=2.0, weighted=False)(student, labels, answer)["loss/ttm"]
    assert plain.item() == pytest.approx(expected / 1.4)
    off = TTM(ttm_weight=0.0)
    assert off.reads == frozenset()
    assert set(off(student, labels, Answer())) == {"loss", "loss/ce"}
