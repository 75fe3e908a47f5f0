"""Means with intervals, paired differences, and when a gain may be claimed."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["claims_gain", "mean_ci95", "over_seeds", "paired_difference", "t_quantile"]

NORMAL_975 = 1.96


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


def over_seeds(differences: Sequence[float]) -> tuple[float, float]:
    """Return the mean over seeds and its half-width t · s / √n (t = 4.30 for three seeds).

    Args:
        differences: each seed's mean paired difference, at least two. Tasks are not pooled.

    Raises:
        ValueError: fewer than two seeds.
    """
    mean, deviation = _mean_deviation(differences)
    n = len(differences)
    return mean, t_quantile(n - 1) * deviation / math.sqrt(n)


def claims_gain(mean: float, half: float) -> bool:
    """Tell whether an interval over seeds permits to claim a gain: it lies above 0."""
    return mean - half > 0.0


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
