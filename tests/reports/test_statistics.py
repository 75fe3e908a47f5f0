"""Intervals and paired differences, against figures worked out by hand."""

from __future__ import annotations

import math

import pytest

from metakd.reports.statistics import (
    claims_gain,
    holm,
    mean_ci95,
    over_seeds,
    paired_difference,
    paired_test,
    t_probability,
    t_quantile,
    widened,
    wilson95,
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


def test_a_paired_test_by_hand() -> None:
    # Mean 0.15, s = 0.1 / √3, t = 0.15 / (s / 2) = 3√3 on three degrees of freedom, where
    # P(|T| <= t) = 2/π · (θ + sin θ · cos θ), θ = atan(t / √3) = atan 3.
    mean, half, p = paired_test([0.1, 0.2, 0.1, 0.2])
    assert mean == pytest.approx(0.15, abs=1e-15)
    assert half == pytest.approx(3.182446 * 0.1 / math.sqrt(3) / 2, abs=1e-7)
    assert p == pytest.approx(1 - 2 / math.pi * (math.atan(3) + 0.3), abs=1e-12)
    assert paired_test([-0.1, -0.2, -0.1, -0.2])[2] == pytest.approx(p)


def test_p_and_interval_agree() -> None:
    # The interval ends at 0 exactly where p is 0.05.
    spread = [-1.0, 0.0, 1.0, -2.0, 2.0]
    shift = over_seeds(spread)[1]
    assert paired_test([x + shift for x in spread])[2] == pytest.approx(0.05, abs=1e-10)


def test_differences_without_spread() -> None:
    assert paired_test([0.0, 0.0, 0.0]) == (0.0, 0.0, 1.0)
    assert paired_test([0.5, 0.5]) == (0.5, 0.0, 0.0)
    with pytest.raises(ValueError, match="at least two values"):
        paired_test([0.5])


def test_counts_that_are_equal_by_chance() -> None:
    """Two seeds with one difference, of figures that go by steps of 0.02: s is 0.01."""
    mean, half, p = paired_test([0.5, 0.5 + 1e-16], 0.02)
    assert (mean, half) == (0.5, pytest.approx(12.7062 * 0.01 / math.sqrt(2), rel=1e-6))
    assert p == pytest.approx(1 - 2 / math.pi * math.atan(0.5 / 0.01 * math.sqrt(2)))
    assert over_seeds([0.5, 0.5], 0.02) == (mean, half)
    assert paired_test([0.1, 0.3], 0.02) == paired_test([0.1, 0.3])


def test_t_probabilities_in_closed_form() -> None:
    for t in (0.0, 0.3, 1.0, 5.0, 1e6):
        assert t_probability(t, 1) == pytest.approx(1 - 2 / math.pi * math.atan(t), rel=1e-9)
        exact = 2 / ((t * t + 2) * (1 + t / math.sqrt(t * t + 2)))  # 1 - t / √(t² + 2)
        assert t_probability(-t, 2) == pytest.approx(exact, rel=1e-9)
    with pytest.raises(ValueError, match="no t distribution"):
        t_probability(1.0, 0)


@pytest.mark.parametrize("freedom", [1, 2, 3, 10, 299, 599, 9999])
def test_t_probabilities_undo_the_quantile(freedom: int) -> None:
    for probability in (0.6, 0.9, 0.975, 0.9995):
        t = t_quantile(freedom, probability)
        assert t_probability(t, freedom) == pytest.approx(2 * (1 - probability), rel=1e-7)


@pytest.mark.parametrize("freedom", [1, 3, 30, 599])
def test_t_probabilities_against_scipy(freedom: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    for t in (1e-3, 0.5, 1.9, 4.0, 12.0, 40.0):
        expected = float(2 * stats.t.sf(t, freedom))
        assert t_probability(t, freedom) == pytest.approx(expected, rel=1e-9)


def test_a_paired_test_against_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    a, b = [0.61, 0.84, 0.7, 0.93, 0.5], [0.58, 0.8, 0.72, 0.9, 0.44]
    found = stats.ttest_rel(a, b)
    low, high = found.confidence_interval()
    mean, half, p = paired_test([x - y for x, y in zip(a, b, strict=True)])
    assert (mean - half, mean + half, p) == pytest.approx((low, high, found.pvalue), rel=1e-9)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], []),
        ([0.02], [0.02]),
        # Ordered 0.01, 0.03, 0.04: times 3, 2, 1 is 0.03, 0.06, 0.04, which may not fall: 0.06.
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),
        ([0.5, 0.6], [1.0, 1.0]),
        ([0.0, 0.2, 0.0], [0.0, 0.2, 0.0]),
    ],
)
def test_holm_by_hand(given: list[float], expected: list[float]) -> None:
    assert [p for p, _ in holm(given)] == pytest.approx(expected)


def test_what_holm_multiplies_by() -> None:
    # Sorted 0.01, 0.02, 0.021, 0.5: times 4, 3, 2, 1 is 0.04, 0.06, 0.042, 0.5; the third is
    # raised to the second, which is 0.06 / 0.021 of it.
    values = [0.5, 0.02, 0.01, 0.021]
    corrected, factors = zip(*holm(values), strict=True)
    assert factors == pytest.approx([1, 3, 4, 0.06 / 0.021])
    assert corrected == pytest.approx([0.5, 0.06, 0.04, 0.06])
    factors = [factor for _, factor in holm([0.9, 0.8])]
    assert factors == pytest.approx([1.6 / 0.9, 2])  # p itself ends at 1
    assert [factor for _, factor in holm([0.0, 0.0, 0.3])] == [3, 2, 1]


@pytest.mark.parametrize("p", [0.0001, 0.012, 0.0166, 0.0167, 0.0199, 0.0201, 0.049, 0.3, 1.0])
def test_an_interval_leaves_0_out_where_its_corrected_p_is_small(p: float) -> None:
    # With two degrees of freedom t = (1 - p) √(2 / (1 - (1 - p)²)); half is 1 / √3.
    t = (1 - p) * math.sqrt(2 / (1 - (1 - p) ** 2))
    half = t_quantile(2) / math.sqrt(3)
    for factor in (1.0, 2.5, 3.0):
        assert (t / math.sqrt(3) > widened(half, 3, factor)) == (factor * p < 0.05)


def test_a_widened_interval_by_hand() -> None:
    # Bonferroni's t of 3 comparisons, two degrees: 59/60 · √(2 / (1 - (59/60)²)) = 7.64889.
    assert widened(4.302653, 3, 3.0) == pytest.approx(7.64889, abs=1e-4)
    assert widened(1.5, 3, 1.0) == 1.5
    assert widened(0.0, 3, 3.0) == 0.0


@pytest.mark.parametrize(
    ("right", "of", "low", "high"),
    [
        # Newcombe (1998), table I: 81/263, 15/148, 0/20, 1/29
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (20, 20, 0.8389, 1.0),
    ],
)
def test_wilson_s_interval_of_worked_values(right: int, of: int, low: float, high: float) -> None:
    assert wilson95(right, of) == pytest.approx((low, high), abs=5e-5)


def test_no_share() -> None:
    for right, of in ((1, 0), (3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="no share"):
            wilson95(right, of)
