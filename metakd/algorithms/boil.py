"""`algorithm=boil`: MAML whose inner loop adapts the body alone."""

from __future__ import annotations

from torch import nn

from metakd.adaptation.gradient_learner import GradientLearner
from metakd.adaptation.outer_gradients import unrolled
from metakd.adaptation.settings import Adaptation
from metakd.adaptation.update_rules import descent

__all__ = ["BOIL"]


class BOIL(GradientLearner):
    """Body only update in inner loop (Oh et al., 2021; method.md section 5).

    The head stays as it is while a task is learned, so the representation has to change: the
    opposite of ANIL.

    Args:
        backbone: the student's.
        outputs: classes of a task, or regression outputs.
        adaptation: its settings; `inner_lr` is the step size of the body.
    """

    def __init__(
        self,
        backbone: nn.Module,
        outputs: int,
        *,
        adaptation: Adaptation = Adaptation(inner_lr=0.05, inner_steps=1),
    ) -> None:
        super().__init__(
            backbone, outputs, descent(adaptation), unrolled, adaptation, adapted="body"
        )
