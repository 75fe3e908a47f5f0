"""`algorithm=meta_sgd`: MAML that learns a rate for every parameter as well."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from metakd.adaptation.differentiation import Tensors
from metakd.adaptation.gradient_learner import GradientLearner
from metakd.adaptation.outer_gradients import unrolled
from metakd.adaptation.settings import Adaptation
from metakd.adaptation.update_rules import LearnedTensors, UpdateRule

__all__ = ["LearnedRates", "MetaSGD"]


class LearnedRates(UpdateRule):
    """φ ← φ - β ⊙ ∇L with a learned β of φ's shape (Li et al., 2017).

    Args:
        lr: every rate at the start.
    """

    counts = False

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
        adaptation: its settings; `inner_lr` is every rate at the start.
    """

    unused = frozenset({"learn_rates"})

    def __init__(
        self,
        backbone: nn.Module,
        outputs: int,
        *,
        adaptation: Adaptation = Adaptation(inner_steps=1),
    ) -> None:
        super().__init__(backbone, outputs, LearnedRates(adaptation.inner_lr), unrolled, adaptation)
