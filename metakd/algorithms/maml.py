"""`algorithm=maml`, `algorithm=fomaml`: an initialisation from which gradient steps learn fast."""

from __future__ import annotations

from torch import nn

from metakd.adaptation.gradient_learner import GradientLearner
from metakd.adaptation.outer_gradients import unrolled
from metakd.adaptation.settings import Adaptation
from metakd.adaptation.update_rules import descent

__all__ = ["MAML"]


class MAML(GradientLearner):
    """Model-agnostic meta-learning (Finn et al., 2017; method.md section 5).

    φ_0 ← φ_0 - η ∇_{φ_0} mean_i L(g_{φ_i}, Q_i), where φ_i comes from φ_0 by gradient descent on
    S_i. The gradient goes through the descent, second derivatives included; with `first_order`
    the inner gradients are constants (FOMAML).

    A teacher on the query set changes L of the outer loss, one on the support set the L that the
    inner loop descends; the outer gradient goes through that, too.

    Args:
        backbone: the student's.
        outputs: classes of a task, or regression outputs.
        adaptation: its settings; `inner_lr` is β_in.
    """

    def __init__(
        self,
        backbone: nn.Module,
        outputs: int,
        *,
        adaptation: Adaptation = Adaptation(),
    ) -> None:
        super().__init__(backbone, outputs, descent(adaptation), unrolled, adaptation)
