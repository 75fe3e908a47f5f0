"""Scores that tell known queries from unknown ones, worked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from metakd.runs.records_using import QUANTILES
from metakd.using.known import (
    SCORES,
    auroc,
    quantiles_of,
    rejection_curve,
    threshold_at,
)


def test_scores() -> None:
    logits = torch.tensor([[math.log(6.0), math.log(3.0), 0.0]], dtype=torch.float64)
    found = {name: float(score(logits)) for name, score in SCORES.items()}
    assert found["probability"] == pytest.approx(0.6)
    assert found["energy"] == pytest.approx(math.log(10.0))
    assert found["nearest"] == pytest.approx(math.log(6.0))
    assert found["lead"] == pytest.approx(math.log(6.0) - math.log(3.0) / 2)


def test_auroc_is_the_share_of_pairs_in_order() -> None:
    known, unknown = torch.tensor([1.0, 3.0, 3.0]), torch.tensor([0.0, 3.0])
    # 1 > 0, 1 < 3; 3 > 0, 3 = 3 (twice)
    assert auroc(known, unknown) == pytest.approx((1 + 0 + 1 + 0.5 + 1 + 0.5) / 6)
    assert auroc(torch.tensor([2.0]), torch.tensor([1.0])) == 1
    with pytest.raises(ValueError, match="both"):
        auroc(known, torch.empty(0))


def test_quantiles_and_thresholds() -> None:
    scores = torch.arange(1001.0).flip(0)
    quantiles = quantiles_of(scores)
    assert len(quantiles) == QUANTILES
    assert (quantiles[0], quantiles[-1]) == (0, 1000)
    assert quantiles[10] == pytest.approx(50)
    assert threshold_at(quantiles, 0.05) == pytest.approx(50)
    assert threshold_at(quantiles, 0.0375) == pytest.approx(37.5)
    assert threshold_at(quantiles, 1.0) == 1000
    assert quantiles_of(torch.tensor([2.0])) == [2.0] * QUANTILES


def test_rejection_curve() -> None:
    quantiles = quantiles_of(torch.arange(101.0))
    (at,) = rejection_curve(torch.arange(0.0, 40.0), torch.tensor([5.0, 25.0]), quantiles, [0.2])
    assert (at.rate, at.false_alarms, at.found) == (0.2, 0.5, 0.5)
