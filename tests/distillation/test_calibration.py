"""The fitted scale is where the likelihood is highest, and is found where it is known."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from metakd.distillation.calibration import LARGEST_SCALE, SMALLEST_SCALE, fit_scale


@pytest.mark.parametrize("true_scale", [0.3, 2.0, 12.0])
def test_a_known_scale_is_recovered(true_scale: float) -> None:
    draw = torch.Generator().manual_seed(0)
    z = torch.randn(50_000, 5, generator=draw, dtype=torch.float64)
    labels = torch.multinomial((true_scale * z).softmax(-1), 1, generator=draw)[:, 0]
    assert fit_scale(z, labels) == pytest.approx(true_scale, rel=0.02)


def test_it_is_the_maximum() -> None:
    draw = torch.Generator().manual_seed(1)
    z = torch.randn(200, 4, generator=draw, dtype=torch.float64)
    labels = torch.multinomial((1.5 * z).softmax(-1), 1, generator=draw)[:, 0]
    scale = torch.tensor(fit_scale(z, labels), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(F.cross_entropy(scale * z, labels), scale)
    assert abs(slope.item()) < 1e-9


def test_scaling_the_logits_scales_the_answer_inversely() -> None:
    draw = torch.Generator().manual_seed(2)
    z = torch.randn(500, 4, generator=draw, dtype=torch.float64)
    labels = torch.multinomial((2 * z).softmax(-1), 1, generator=draw)[:, 0]
    assert fit_scale(5 * z, labels) == pytest.approx(fit_scale(z, labels) / 5, rel=1e-6)


def test_smoothed_targets() -> None:
    draw = torch.Generator().manual_seed(1)
    z = torch.randn(200, 4, generator=draw, dtype=torch.float64)
    labels = torch.multinomial((1.5 * z).softmax(-1), 1, generator=draw)[:, 0]
    fitted = fit_scale(z, labels, smoothing=0.1)
    scale = torch.tensor(fitted, dtype=torch.float64, requires_grad=True)
    target = torch.full_like(z, 0.1 / 3).scatter(1, labels[:, None], 0.9)
    (slope,) = torch.autograd.grad(F.cross_entropy(scale * z, target), scale)
    assert abs(slope.item()) < 1e-9


def test_where_the_likelihood_has_no_maximum_the_nearer_end_is_given() -> None:
    z = torch.eye(3)
    assert fit_scale(z, torch.tensor([0, 1, 2])) == pytest.approx(LARGEST_SCALE)
    assert fit_scale(-z, torch.tensor([0, 1, 2])) == pytest.approx(SMALLEST_SCALE)
    with pytest.raises(ValueError, match="no example"):
        fit_scale(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long))
