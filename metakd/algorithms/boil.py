"""`algorithm=boil`: MAML whose inner loop adapts the body alone."""

from __future__ import annotations

from torch import nn

from metakd.adaptation.annealing import Annealing
from metakd.adaptation.gradient_learner import GradientLearner
from metakd.adaptation.layer_step_rates import descent
from metakd.adaptation.outer_gradients import unrolled

__all__ = ["BOIL"]


class BOIL(GradientLearner):
    """Body only update in inner loop (Oh et al., 2021; method.md section 5).

    The head stays as it is while a task is learned, so the representation has to change: the
    opposite of ANIL.

    Args:
        backbone: the student's.
        outputs: classes of a task, or regression outputs.
        inner_lr: step size of the body. The loss is a mean over examples.
        inner_steps: see `GradientLearner`, as for all below.
        inner_steps_test: steps at evaluation.
        first_order: inner gradients are constants.
        batchnorm: statistics of the query pass in training.
        execution: how tasks are computed.
        inner_precision: number format of the inner loop.
        multi_step: share of training with a query loss after every step; see `Annealing`.
        first_order_share: share of training that is first order; see `Annealing`.
        learn_rates: `none`, or `per_layer_per_step`: see `LayerStepRates`.
        checkpoint_steps: steps between those kept for the backward pass.
    """

    def __init__(
        self,
        backbone: nn.Module,
        outputs: int,
        *,
        inner_lr: float = 0.05,
        inner_steps: int = 1,
        inner_steps_test: int | None = None,
        first_order: bool = False,
        batchnorm: str = "transductive",
        execution: str = "auto",
        inner_precision: str = "float32",
        multi_step: float = 0.0,
        first_order_share: float = 0.0,
        learn_rates: str = "none",
        checkpoint_steps: int | bool = 0,
    ) -> None:
        super().__init__(
            backbone,
            outputs,
            descent(learn_rates, inner_lr, inner_steps),
            unrolled,
            inner_steps=inner_steps,
            inner_steps_test=inner_steps_test,
            adapted="body",
            first_order=first_order,
            batchnorm=batchnorm,
            execution=execution,
            inner_precision=inner_precision,
            annealing=Annealing(multi_step, first_order_share),
            checkpoint_steps=checkpoint_steps,
        )
