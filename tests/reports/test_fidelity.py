"""Agreement, KL and calibration error by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from metakd.reports.fidelity import agreement, expected_calibration_error, fidelity, mean_kl


def _certain(*probabilities: float) -> Tensor:
    """Logits of two classes, the first with these probabilities."""
    p = torch.tensor(probabilities, dtype=torch.float64)
    return torch.stack([p, 1 - p], dim=-1).log()


def test_agreement() -> None:
    teacher = torch.tensor([[[2.0, 1.0, 0.0], [0.0, 1.0, 0.5]], [[1.0, 0.0, 3.0], [1.0, 0.0, 0.5]]])
    student = torch.tensor([[[9.0, 1.0, 0.0], [0.0, 0.2, 0.5]], [[0.0, 0.0, 0.1], [1.0, 0.9, 0.5]]])
    assert agreement(teacher, student) == pytest.approx(3 / 4)
    assert agreement(teacher, teacher) == 1.0


def test_kl_of_the_worked_example() -> None:
    teacher = torch.tensor([0.1, 0.2, 0.6, 0.05, 0.05]).log()
    student = torch.tensor([0.15, 0.1, 0.7, 0.03, 0.02]).log()
    assert mean_kl(teacher[None], student[None]) == pytest.approx(0.0769, abs=5e-5)


def test_kl_is_a_mean_over_all_examples() -> None:
    teacher, student = _certain(0.5, 0.5, 0.5, 0.5), _certain(0.5, 0.9, 0.5, 0.9)
    one = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)
    assert mean_kl(teacher.view(2, 2, 2), student.view(2, 2, 2)) == pytest.approx(one / 2)
    assert fidelity(teacher, student) == {
        "agreement": agreement(teacher, student),
        "kl": mean_kl(teacher, student),
    }


def test_calibration_error_by_hand() -> None:
    """Two bins of five: confidence 0.9 with one of two right, 0.7 with both right."""
    logits = _certain(0.9, 0.1, 0.7, 0.7)
    targets = torch.tensor([0, 0, 0, 0])
    expected = 2 / 4 * abs(0.5 - 0.9) + 2 / 4 * abs(1.0 - 0.7)
    assert expected_calibration_error(logits, targets, bins=5) == pytest.approx(expected)


def test_within_a_bin_over_and_under_confidence_cancel() -> None:
    logits, targets = _certain(0.81, 0.89), torch.tensor([0, 1])
    assert expected_calibration_error(logits, targets, bins=5) == pytest.approx(abs(0.5 - 0.85))


def test_bins_are_closed_above() -> None:
    """A confidence of exactly 0.75 of four bins is in the third, with 0.6, not with 0.9."""
    logits, targets = _certain(0.75, 0.6, 0.9), torch.tensor([1, 0, 0])
    expected = (abs(-0.75 + 0.4) + 0.1) / 3
    assert expected_calibration_error(logits, targets, bins=4) == pytest.approx(expected)


def test_calibrated_predictions_have_a_small_error_and_sharpened_ones_a_large_one() -> None:
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(50_000, 5, generator=draw)
    targets = torch.multinomial(logits.softmax(-1), 1, generator=draw)[:, 0]
    assert expected_calibration_error(logits, targets) < 0.01
    assert expected_calibration_error(4 * logits, targets) > 0.2


def test_certainty_and_lack_of_it() -> None:
    certain = torch.tensor([[1000.0, 0.0], [0.0, 1000.0]])
    assert expected_calibration_error(certain, torch.tensor([0, 1])) == 0.0
    assert expected_calibration_error(certain, torch.tensor([1, 0])) == 1.0


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        agreement(torch.zeros(4, 3), torch.zeros(1, 3))
    with pytest.raises(ValueError, match="no example"):
        mean_kl(torch.zeros(0, 3), torch.zeros(0, 3))
    with pytest.raises(ValueError, match="do not match"):
        expected_calibration_error(torch.zeros(4, 3), torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match="no prediction"):
        expected_calibration_error(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long))


def test_of_regression_it_is_the_mean_squared_difference() -> None:
    teacher = torch.tensor([[[1.0], [2.0]], [[0.0], [4.0]]])
    student = torch.tensor([[[1.5], [2.0]], [[-1.0], [2.0]]])
    # (0.25 + 0 + 1 + 4) / 4
    assert fidelity(teacher, student, regression=True) == {"mse": 1.3125}
    student[0, 0] = math.inf
    assert math.isnan(fidelity(teacher, student, regression=True)["mse"])
