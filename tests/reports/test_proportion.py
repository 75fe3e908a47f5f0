"""Wilson's interval against worked values."""

from __future__ import annotations

import pytest

from metakd.reports.proportion import wilson95


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
def test_worked_values(right: int, of: int, low: float, high: float) -> None:
    assert wilson95(right, of) == pytest.approx((low, high), abs=5e-5)


def test_no_share() -> None:
    for right, of in ((1, 0), (3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="no share"):
            wilson95(right, of)
