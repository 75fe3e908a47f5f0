"""How a task is learned by gradient steps: the settings that the MAML family shares.

Two of them change in the course of training: MAML++'s annealings.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from metakd.errors import UserError, check_word

__all__ = ["ADAPTED", "BATCHNORM", "EXECUTIONS", "PRECISIONS", "Adaptation", "Annealing"]

ADAPTED = ("all", "head", "body")
BATCHNORM = ("transductive", "inductive")
EXECUTIONS = ("auto", "loop", "threads", "batched")
PRECISIONS = ("float32", "bfloat16")
LEARN_RATES = ("none", "per_layer_per_step")


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


@dataclass(frozen=True)
class Adaptation:
    """Settings of a `GradientLearner`.

    An algorithm's own defaults are the instance that its constructor has as default; those that it
    has no use for are in its class attribute `unused`.

    Attributes:
        inner_lr: β_in, the step size. The loss is a mean over examples.
        inner_steps: K, adaptation steps in training, at least 1.
        inner_steps_test: steps at evaluation; None: as in training.
        first_order: inner gradients are constants.
        batchnorm: `transductive` or `inductive`: statistics of the query pass in training.
        execution: how tasks are computed: `auto`, `loop`, `threads` or `batched`, see
            `task_execution.py`.
        inner_precision: number format of the inner loop's forward passes, `float32` or `bfloat16`.
        multi_step: share of training with a query loss after every step; see `Annealing`.
        first_order_share: share of training that is first order; see `Annealing`.
        learn_rates: `none`, or `per_layer_per_step`: see `LayerStepRates`.
        checkpoint_steps: inner steps between those whose values are kept for the backward pass
            (True: 1), the rest is computed again there; 0 or False: everything is kept.

    Raises:
        UserError: a setting has no such value, or two do not go together.
    """

    inner_lr: float = 0.01
    inner_steps: int = 5
    inner_steps_test: int | None = None
    first_order: bool = False
    batchnorm: str = "transductive"
    execution: str = "auto"
    inner_precision: str = "float32"
    multi_step: float = 0.0
    first_order_share: float = 0.0
    learn_rates: str = "none"
    checkpoint_steps: int | bool = 0

    def __post_init__(self) -> None:
        least = 0 if self.inner_steps_test is None else min(0, self.inner_steps_test)
        if self.inner_steps < 1 or least < 0:
            raise UserError(
                f"algorithm.inner_steps={self.inner_steps}, inner_steps_test="
                f"{self.inner_steps_test}: "
                "training needs at least 1 step of adaptation, evaluation 0 or more"
            )
        check_word("algorithm.batchnorm", self.batchnorm, BATCHNORM)
        check_word("algorithm.options.execution", self.execution, EXECUTIONS)
        check_word("algorithm.options.inner_precision", self.inner_precision, PRECISIONS)
        check_word("algorithm.options.learn_rates", self.learn_rates, LEARN_RATES)
        if self.checkpoint_steps < 0:
            raise UserError(
                f"algorithm.options.checkpoint_steps={self.checkpoint_steps}: expected true, or "
                "the number of inner steps between checkpoints; type 0 to keep everything"
            )
        if self.checkpoint_steps and self.execution == "batched":
            raise UserError(
                "algorithm.options.checkpoint_steps: tasks that are computed all at once cannot "
                "be computed again one by one; type algorithm.options.execution=loop"
            )
        if self.annealing.first_order_share and self.first_order:
            raise UserError(
                f"algorithm.options.first_order_share={self.first_order_share}: with "
                "algorithm.first_order=true all of training is first order; type "
                "algorithm.first_order=false"
            )

    @property
    def annealing(self) -> Annealing:
        """What changes in the course of training."""
        return Annealing(self.multi_step, self.first_order_share)

    @property
    def test_steps(self) -> int:
        """Adaptation steps at evaluation."""
        return self.inner_steps if self.inner_steps_test is None else self.inner_steps_test
