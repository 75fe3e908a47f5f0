"""The accuracy : cost front."""

from __future__ import annotations

import random

import pytest

from metakd.comparing.front import front


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
