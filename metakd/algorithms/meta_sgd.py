"""`algorithm=meta_sgd`: MAML that learns a rate for every parameter as well."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from metakd.adaptation.differentiation import Tensors
from metakd.adaptation.gradient_learner import GradientLearner
from metakd.adaptation.learned_tensors import LearnedTensors
from metakd.adaptation.outer_gradients import unrolled
from metakd.adaptation.update_rules import UpdateRule

__all__ = ["LearnedRates", "MetaSGD"]


class LearnedRates(UpdateRule):
    """φ ← φ - β ⊙ ∇L with a learned β of φ's shape (Li et al., 2017).

    Args:
        lr: every rate at the start.
    """

    def __init__(self, lr: float) -> None:
        super().__init__()
        self.lr = lr
        self.rates = LearnedTensors()

    def attach(self, parameters: Tensors) -> None:
        """See `UpdateRule`."""
        for name, value in parameters.items():
            self.rates.put(name, torch.full_like(value.detach(), self.lr))

    def forward(
        self, step: int, parameters: Tensors, gradients: Tensors, loss: Tensor, state: Any
    ) -> tuple[Tensors, Any]:
        """See `UpdateRule`."""
        moved = {n: v - self.rates[n] * gradients[n] for n, v in parameters.items()}
        return moved, None


class MetaSGD(GradientLearner):
    """Meta-SGD (Li et al., 2017; method.md section 5).

    Initialisation, direction and length of a step are learned together: a rate may become 0, or
    negative. With constant rates it is MAML. As published it takes one step.

    Args:
        backbone: the student's.
        outputs: classes of a task, or regression outputs.
        inner_lr: every rate at the start.
        inner_steps: see `GradientLearner`, as for all below.
        inner_steps_test: steps at evaluation.
        first_order: inner gradients are constants.
        batchnorm: statistics of the query pass in training.
        execution: how tasks are computed.
        inner_precision: number format of the inner loop.
    """

    def __init__(
        self,
        backbone: nn.Module,
        outputs: int,
        *,
        inner_lr: float = 0.01,
        inner_steps: int = 1,
        inner_steps_test: int | None = None,
        first_order: bool = False,
        batchnorm: str = "transductive",
        execution: str = "auto",
        inner_precision: str = "float32",
    ) -> None:
        super().__init__(
            backbone,
            outputs,
            LearnedRates(inner_lr),
            unrolled,
            inner_steps=inner_steps,
            inner_steps_test=inner_steps_test,
            adapted="all",
            first_order=first_order,
            batchnorm=batchnorm,
            execution=execution,
            inner_precision=inner_precision,
        )
