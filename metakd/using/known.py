"""Open-set scores: queries of the known classes against queries of other classes.

A score of a query's logits is larger the more it looks like one of the classes. Score and threshold
are chosen on meta-validation tasks (`calibration.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from metakd.runs.records_using import QUANTILES, CurvePoint, Score

__all__ = ["SCORES", "auroc", "quantiles_of", "rejection_curve", "threshold_at"]


def _probability(logits: Tensor) -> Tensor:
    return logits.softmax(-1).amax(-1)


def _energy(logits: Tensor) -> Tensor:
    return logits.logsumexp(-1)


def _lead(logits: Tensor) -> Tensor:
    ways = logits.shape[-1]
    best = logits.amax(-1)
    return best - (logits.sum(-1) - best) / max(1, ways - 1)


SCORES: dict[Score, Callable[[Tensor], Tensor]] = {
    "probability": _probability,
    "energy": _energy,
    "nearest": lambda logits: logits.amax(-1),
    "lead": _lead,
}
"""Scores of calibrated logits [..., ways] -> [...]: the largest probability; log Σ exp, the free
energy (Liu et al., 2020); the largest logit, for prototypes the distance to the nearest; the
largest logit minus the mean of the others."""


def quantiles_of(scores: Tensor) -> list[float]:
    """Return `QUANTILES` quantiles of scores [n]."""
    at = torch.linspace(0, 1, QUANTILES, dtype=torch.float64)
    ordered = scores.double().flatten().sort().values
    place = at * (len(ordered) - 1)
    low = place.floor().long()
    high = place.ceil().long()
    return (ordered[low] + (place - low) * (ordered[high] - ordered[low])).tolist()


def threshold_at(quantiles: Sequence[float], rate: float) -> float:
    """Return the `rate` quantile of the score over known queries."""
    place = min(max(rate, 0.0), 1.0) * (len(quantiles) - 1)
    low = min(int(place), len(quantiles) - 2)
    return quantiles[low] + (place - low) * (quantiles[low + 1] - quantiles[low])


def auroc(known: Tensor, unknown: Tensor) -> float:
    """Return the AUROC: how often a known query scores above an unknown one, ties counting half.

    0.5 is chance, 1 perfect.

    Args:
        known: scores [n].
        unknown: scores [m].

    Raises:
        ValueError: one of them is empty.
    """
    if not len(known) or not len(unknown):
        raise ValueError("both kinds of queries are needed")
    ordered = unknown.double().sort().values
    below = torch.searchsorted(ordered, known.double())
    up_to = torch.searchsorted(ordered, known.double(), right=True)
    return float((below + up_to).double().mean() / (2 * len(unknown)))


def rejection_curve(
    known: Tensor, unknown: Tensor, quantiles: Sequence[float], rates: Sequence[float]
) -> list[CurvePoint]:
    """Return the rejection curve: the effect of the thresholds of `quantiles` on other queries.

    Args:
        known: scores [n].
        unknown: scores [m].
        quantiles: `quantiles_of` the known queries that thresholds come from.
        rates: shares of known queries that are to be rejected; each gives a point.
    """
    curve = []
    for rate in rates:
        threshold = threshold_at(quantiles, rate)
        curve.append(
            CurvePoint(
                rate=rate,
                false_alarms=float((known.double() < threshold).double().mean()),
                found=float((unknown.double() < threshold).double().mean()),
            )
        )
    return curve
