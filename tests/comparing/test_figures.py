"""The accuracy : cost front."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from metakd.comparing.figures import figure_of, front
from metakd.comparing.gather import read

Made = Callable[..., Path]


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([], []),
        ([(1, 1)], [True]),
        ([(1, 0.5), (2, 0.6), (3, 0.55)], [True, True, False]),
        (
            [(2, 0.6), (2, 0.7), (1, 0.6)],
            [False, True, True],
        ),  # as good for less; better for as much
        ([(1, 0.5), (1, 0.5), (2, 0.5)], [True, True, False]),
        ([(1, 0.5), None, (2, 0.4)], [True, False, False]),
        ([(1, -2.0), (2, -1.0)], [True, True]),  # errors, negated
    ],
)
def test_by_hand(points, expected) -> None:
    assert front(points) == expected


def test_against_the_definition() -> None:
    rng = random.Random(0)
    for _ in range(200):
        points = [(rng.randint(1, 5), rng.randint(1, 5)) for _ in range(rng.randint(1, 9))]
        beaten = [
            any(c <= cost and g >= good and (c, g) != (cost, good) for c, g in points)
            for cost, good in points
        ]
        assert front(points) == [not b for b in beaten]


@pytest.mark.parametrize(
    ("points", "spreads", "expected"),
    [
        # 0.204 ± 0.003 and 0.207 ± 0.002 are the same latency: the better one is on the front.
        ([(0.204, 0.40), (0.207, 0.41)], [0.003, 0.002], [False, True]),
        ([(0.204, 0.40), (0.207, 0.41)], [0.001, 0.001], [True, True]),  # further apart than that
        ([(0.204, 0.41), (0.207, 0.40)], [0.003, 0.002], [True, False]),
        ([(0.204, 0.40), (0.207, 0.40)], [0.003, 0.002], [True, True]),  # equal in both
        ([(0.1, 0.40), (0.2, 0.40)], [0.01, 0.01], [True, False]),  # as good for less
        ([(0.1, 0.40), None, (0.2, 0.45)], [0.01, 0.0, 0.01], [True, False, True]),
    ],
)
def test_costs_within_their_noise_are_equal(points, spreads, expected) -> None:
    assert front(points, spreads) == expected


def test_spreads_too_small_to_matter_change_nothing() -> None:
    rng = random.Random(1)
    for _ in range(100):
        points = [(rng.randint(1, 5), rng.randint(1, 5)) for _ in range(rng.randint(1, 9))]
        assert front(points, [1e-6] * len(points)) == front(points)


def test_a_network_of_several_runs_counts_once(made_up: Made, tmp_path: Path) -> None:
    row = tuple(
        read(
            made_up(
                tmp_path / str(seed),
                {"student": {1: [0.5, 0.7]}, "teacher": {1: [value, value + 0.1]}},
                seed=seed,
                info={"teacher": teacher},
            )
        )
        for seed, (value, teacher) in enumerate([(0.5, "a"), (0.5, "a"), (0.7, "b")])
    )
    teacher = figure_of(row, "teacher", 1)
    assert teacher is not None
    # 0.55 and 0.75: mean 0.65, s = 0.1 √2.
    assert (teacher.mean, teacher.seeds) == (pytest.approx(0.65), 2)
    assert teacher.deviation == pytest.approx(0.1 * math.sqrt(2))
    assert teacher.half == pytest.approx(12.7062 * 0.1, abs=1e-5)
