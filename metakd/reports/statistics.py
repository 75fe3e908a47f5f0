"""Means and shares with intervals, paired differences, and whether a gain is significant."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

__all__ = [
    "claims_gain",
    "holm",
    "mean_ci95",
    "over_seeds",
    "paired_difference",
    "paired_test",
    "t_probability",
    "t_quantile",
    "widened",
    "wilson95",
]

NORMAL_975 = 1.96
EXACT_975 = 1.959963984540054


def mean_ci95(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean over tasks and the half-width of its 95 % interval, 1.96 · s / √E.

    Args:
        values: one figure a task, at least two; s has E - 1 in the denominator.

    Raises:
        ValueError: fewer than two values have no spread.
    """
    mean, deviation = _mean_deviation(values)
    return mean, NORMAL_975 * deviation / math.sqrt(len(values))


def paired_difference(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """Return the mean of a - b over the same tasks and the half-width of its 95 % interval.

    Args:
        a: one figure a task.
        b: the other model's figures on the same tasks, in the same order.

    Raises:
        ValueError: different numbers of tasks, or fewer than two.
    """
    if len(a) != len(b):
        raise ValueError(f"not the same tasks: {len(a)} and {len(b)}")
    return mean_ci95([float(x) - float(y) for x, y in zip(a, b, strict=True)])


def over_seeds(differences: Sequence[float], step: float = 0.0) -> tuple[float, float]:
    """Return the mean over seeds and its half-width t · s / √n (t = 4.30 for three seeds).

    Figures that are counts, as of right answers, can be equal by chance, and an interval of width 0
    would say that other seeds could not differ. s is then half a step.

    Args:
        differences: each seed's mean paired difference, at least two. Tasks are not pooled.
        step: the smallest amount by which two of them can differ; 0: any.

    Raises:
        ValueError: fewer than two seeds.
    """
    mean, deviation = _mean_deviation(differences)
    n = len(differences)
    if deviation < 1e-6 * step:  # all the same, but for rounding
        deviation = step / 2
    return mean, t_quantile(n - 1) * deviation / math.sqrt(n)


def paired_test(differences: Sequence[float], step: float = 0.0) -> tuple[float, float, float]:
    """Return the mean, the half-width t · s / √n of its 95 % interval, and Student's p.

    p is two-sided, for a true mean of 0. Differences that are all the same, without a `step`, have
    no spread: p is then 1 if they are 0, else 0.

    Args:
        differences: one figure a task, or a seed; at least two.
        step: as in `over_seeds`.

    Raises:
        ValueError: fewer than two.
    """
    mean, half = over_seeds(differences, step)
    n = len(differences)
    if half == 0.0:
        return mean, half, 1.0 if mean == 0.0 else 0.0
    return mean, half, t_probability(mean / half * t_quantile(n - 1), n - 1)


def holm(probabilities: Sequence[float]) -> list[tuple[float, float]]:
    """Return p values corrected for their number (Holm 1979), and by what each was multiplied.

    The smallest of m is multiplied by m, the next one by m - 1 and so on; none becomes smaller
    than one before it (its factor is then larger), none larger than 1. With a threshold of 0.05,
    the family-wise error rate is at most 0.05.

    Args:
        probabilities: in any order, which is that of the answer.
    """
    corrected = [(0.0, 1.0)] * len(probabilities)
    largest = 0.0
    for rank, i in enumerate(sorted(range(len(probabilities)), key=probabilities.__getitem__)):
        own = len(probabilities) - rank
        raised = own * probabilities[i] < largest
        factor = largest / probabilities[i] if raised else float(own)
        largest = max(largest, own * probabilities[i])
        corrected[i] = min(1.0, largest), factor
    return corrected


def widened(half: float, n: int, factor: float) -> float:
    """Return the half-width that belongs to a corrected p: it excludes 0 where that is below 0.05.

    The interval has the level 1 - 0.05 / factor, in place of 0.95.

    Args:
        half: half-width t · s / √n of the 95 % interval.
        n: number of differences.
        factor: what p was multiplied by (`holm`).
    """
    if half == 0.0 or factor <= 1.0:
        return half
    return half * t_quantile(n - 1, 1.0 - 0.025 / factor) / t_quantile(n - 1)


def wilson95(right: int, of: int) -> tuple[float, float]:
    """Return both ends of Wilson's 95 % score interval for a share (Wilson, 1927).

    It stays within 0 and 1, and is meaningful for 0 and 1, too.

    Args:
        right: how often it happened.
        of: number of trials, independent of each other.

    Raises:
        ValueError: no trial, or more happened than were tried.
    """
    if not 0 <= right <= of or of < 1:
        raise ValueError(f"{right} of {of} is no share")
    z2 = EXACT_975**2
    share = right / of
    middle = (share + z2 / (2 * of)) / (1 + z2 / of)
    half = EXACT_975 / (1 + z2 / of) * math.sqrt(share * (1 - share) / of + z2 / (4 * of * of))
    return max(0.0, middle - half), min(1.0, middle + half)


def claims_gain(mean: float, half: float) -> bool:
    """Tell whether an interval over seeds lies above 0, so that a gain may be claimed."""
    return mean - half > 0.0


@lru_cache(maxsize=256)
def t_quantile(freedom: int, probability: float = 0.975) -> float:
    """Return the quantile of Student's t distribution, found by bisection.

    Args:
        freedom: degrees of freedom, at least 1.
        probability: between 0.5 and 1.

    Raises:
        ValueError: out of range.
    """
    if freedom < 1 or not 0.5 <= probability < 1.0:
        raise ValueError(f"no t quantile for {freedom} degrees of freedom at {probability}")
    low, high = 0.0, 1.0
    while _t_cumulative(high, freedom) < probability:
        high *= 2.0
    while high - low > 1e-12 * high:
        middle = (low + high) / 2.0
        if middle in (low, high):
            break
        if _t_cumulative(middle, freedom) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2.0


def t_probability(t: float, freedom: int) -> float:
    """Return P(|T| >= |t|) of Student's t distribution, also where it is tiny.

    Args:
        t: the statistic.
        freedom: degrees of freedom, at least 1.

    Raises:
        ValueError: no degrees of freedom.
    """
    if freedom < 1:
        raise ValueError(f"no t distribution with {freedom} degrees of freedom")
    x = freedom / (freedom + t * t)
    a, b = freedom / 2.0, 0.5
    # P is the regularised incomplete beta function I_x(a, b); its continued fraction converges
    # fast below (a + 1) / (a + b + 2), and I_x(a, b) = 1 - I_{1-x}(b, a) above it.
    if x <= (a + 1.0) / (a + b + 2.0):
        return min(1.0, _incomplete_beta(x, 1.0 - x, a, b))
    return max(0.0, 1.0 - _incomplete_beta(t * t / (freedom + t * t), x, b, a))


def _incomplete_beta(x: float, rest: float, a: float, b: float) -> float:
    """Return I_x(a, b) by its continued fraction (Abramowitz & Stegun 26.5.8, Lentz's method).

    Args:
        x: at most (a + 1) / (a + b + 2).
        rest: 1 - x, as exactly as it is known.
        a: above 0.
        b: above 0.
    """
    if x <= 0.0:
        return 0.0
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    log_front += a * math.log(x) + b * math.log(rest)
    above, below = 1.0, 1.0 / (1.0 - (a + b) * x / (a + 1.0))
    fraction = below
    for m in range(1, 1000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            below = 1.0 / (1.0 + term * below)
            above = 1.0 + term / above
            fraction *= below * above
        if abs(below * above - 1.0) < 1e-15:
            break
    return math.exp(log_front) * fraction / a


def _mean_deviation(values: Sequence[float]) -> tuple[float, float]:
    n = len(values)
    if n < 2:
        raise ValueError(f"an interval needs at least two values, not {n}")
    mean = math.fsum(values) / n
    return mean, math.sqrt(math.fsum((x - mean) ** 2 for x in values) / (n - 1))


def _t_cumulative(t: float, freedom: int) -> float:
    """Return P(T <= t) for t >= 0, by the finite series (Abramowitz & Stegun 26.7.3, 26.7.4)."""
    theta = math.atan(t / math.sqrt(freedom))
    cosine, sine = math.cos(theta), math.sin(theta)
    if freedom == 1:
        return 0.5 + theta / math.pi
    total = term = cosine if freedom % 2 else 1.0
    for k in range(3 if freedom % 2 else 2, freedom - 1, 2):
        term *= cosine * cosine * (k - 1) / k
        total += term
    if freedom % 2:
        return 0.5 + (theta + sine * total) / math.pi
    return 0.5 + sine * total / 2.0
