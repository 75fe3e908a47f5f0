"""Intervals and paired differences, against figures worked out by hand."""

from __future__ import annotations

import math

import pytest

from metakd.reports.statistics import (
    claims_gain,
    mean_ci95,
    over_seeds,
    paired_difference,
    t_quantile,
)


def test_mean_and_interval_by_hand() -> None:
    # s² = (2.25 + 0.25 + 0.25 + 2.25) / 3 = 5/3; 1.96 · √(5/3) / √4
    mean, half = mean_ci95([1, 2, 3, 4])
    assert mean == 2.5
    assert half == pytest.approx(1.96 * math.sqrt(5 / 3) / 2, abs=1e-15)


def test_a_paired_difference_by_hand() -> None:
    # differences 0.1, 0.3, 0.2: mean 0.2, s = 0.1, half = 1.96 · 0.1 / √3
    a, b = [0.6, 0.9, 0.4], [0.5, 0.6, 0.2]
    mean, half = paired_difference(a, b)
    assert mean == pytest.approx(0.2, abs=1e-15)
    assert half == pytest.approx(0.196 / math.sqrt(3), abs=1e-12)
    # Far narrower than the tasks' own spread would make it.
    assert half < mean_ci95(a)[1]


def test_pairs_need_the_same_tasks() -> None:
    with pytest.raises(ValueError, match="not the same tasks: 3 and 2"):
        paired_difference([1, 2, 3], [1, 2])


def test_three_seeds_by_hand() -> None:
    # s = 1, t(2) = 4.3027: half = 4.3027 / √3 = 2.484
    mean, half = over_seeds([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert half == pytest.approx(2.4841, abs=1e-4)
    assert not claims_gain(mean, half)
    assert claims_gain(*over_seeds([1.9, 2.0, 2.1]))
    assert not claims_gain(*over_seeds([-1.9, -2.0, -2.1]))


@pytest.mark.parametrize("function", [mean_ci95, over_seeds])
def test_one_value_has_no_interval(function) -> None:
    with pytest.raises(ValueError, match="at least two values, not 1"):
        function([1.0])


# Any table of Student's t, two-sided 95 %.
TABLE = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 9: 2.262, 10: 2.228, 29: 2.045}


@pytest.mark.parametrize(("freedom", "quantile"), TABLE.items())
def test_t_quantiles_from_the_table(freedom: int, quantile: float) -> None:
    assert t_quantile(freedom) == pytest.approx(quantile, abs=5.01e-4)


def test_t_quantiles_in_closed_form() -> None:
    # One degree: tan(π(p - ½)); two: (2p - 1)·√(2 / (4p(1 - p))).
    assert t_quantile(1, 0.9) == pytest.approx(math.tan(0.4 * math.pi), rel=1e-10)
    assert t_quantile(2, 0.975) == pytest.approx(0.95 * math.sqrt(2 / 0.0975), rel=1e-10)
    assert t_quantile(100_000) == pytest.approx(1.95996, abs=1e-4)
    with pytest.raises(ValueError, match="no t quantile"):
        t_quantile(0)
