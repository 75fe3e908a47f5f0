"""Settings of the MAML family that change in the course of training: MAML++'s two annealings."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from metakd.errors import UserError

__all__ = ["Annealing"]


@dataclass(frozen=True)
class Annealing:
    """Pure functions of (step, steps), so that a resumed run goes on exactly.

    Attributes:
        multi_step: share of training, 0 … 1, over which the query losses after all inner steps
            count. Their weights start equal and move linearly to the last step alone.
        first_order_share: share of training, 0 … 1, whose gradients are first order; the rest is
            of second order.

    Raises:
        UserError: a share outside 0 … 1.
    """

    multi_step: float = 0.0
    first_order_share: float = 0.0

    def __post_init__(self) -> None:
        for name in ("multi_step", "first_order_share"):
            share = getattr(self, name)
            if not 0.0 <= share <= 1.0:
                raise UserError(
                    f"algorithm.options.{name}={share}: expected a share of training from 0 to 1; "
                    f"type {min(max(share, 0.0), 1.0):g}"
                )

    def weights(self, step: int, steps: int, inner_steps: int) -> tuple[float, ...] | None:
        """Return the weight of the query loss after each inner step; None: only the last counts.

        With p = step / (multi_step · steps) and K inner steps: (1 - p) / K for each but the last,
        what is missing to 1 for the last. MAML++ (Antoniou et al., 2019, section 4, "multi-step
        loss optimization"; its code leaves a floor under the weights until the end).

        Args:
            step: training update, from 0.
            steps: number of updates.
            inner_steps: K.
        """
        length = _updates(self.multi_step, steps)
        if step >= length or inner_steps == 1:
            return None
        early = (1.0 - step / length) / inner_steps
        return (early,) * (inner_steps - 1) + (1.0 - early * (inner_steps - 1),)

    def is_first_order(self, step: int, steps: int) -> bool:
        """Say whether update `step` of `steps` belongs to the first-order share."""
        return step < _updates(self.first_order_share, steps)

    def phases(self, steps: int) -> list[tuple[int, int]]:
        """Return (first update, number of updates) of the spans of training that cost alike."""
        shares = (self.multi_step, self.first_order_share)
        marks = sorted({0, steps, *(math.ceil(_updates(share, steps)) for share in shares)})
        return [(a, b - a) for a, b in pairwise(marks)]


def _updates(share: float, steps: int) -> float:
    return round(share * steps, 6)  # 0.1 · 30 is a little above 3
