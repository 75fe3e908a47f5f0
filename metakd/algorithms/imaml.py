"""`algorithm=imaml`: MAML whose outer gradient is that of a minimum of the inner loss."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from metakd.adaptation.gradient_learner import GradientLearner
from metakd.adaptation.implicit_gradient import ImplicitGradient
from metakd.adaptation.settings import Adaptation
from metakd.adaptation.update_rules import GradientDescent
from metakd.errors import UserError

__all__ = ["IMAML"]


class IMAML(GradientLearner):
    """Meta-learning with implicit gradients (Rajeswaran et al., 2019).

    The inner steps descend L(φ, S_i) + λ/2 ‖φ - φ_0‖², at evaluation, too. The outer gradient
    assumes that they end at its minimum (`ImplicitGradient`), so it needs no graph through the
    steps: as many as it takes to get there cost time but no memory.

    Args:
        backbone: the student's.
        outputs: classes of a task, or regression outputs.
        adaptation: its settings; `inner_lr` is the rate of the inner descent, which has to
            be below 2 / (λ + the loss's largest curvature).
        proximal: λ, above 0. The larger it is, the nearer tasks stay to the start, the better
            conditioned is the system that is solved, and the fewer steps reach the minimum.
        cg_steps: steps of the solver.
        damping: added to λ in the system that is solved.

    Raises:
        UserError: a setting is out of its range.
    """

    unused = frozenset(
        {"learn_rates", "first_order_share", "multi_step", "first_order", "checkpoint_steps"}
    )

    def __init__(
        self,
        backbone: nn.Module,
        outputs: int,
        *,
        adaptation: Adaptation = Adaptation(inner_lr=0.02, inner_steps=16),
        proximal: float = 2.0,
        cg_steps: int = 5,
        damping: float = 1.0,
    ) -> None:
        if not proximal > 0:
            raise UserError(
                f"algorithm.options.proximal={proximal}: the minimum depends on the start by this "
                "term alone, so it has to be above 0; try 2.0"
            )
        if cg_steps < 0:
            raise UserError(
                f"algorithm.options.cg_steps={cg_steps}: expected 0 or more steps; try 5"
            )
        if not damping >= 0:
            raise UserError(f"algorithm.options.damping={damping}: expected 0 or more; try 1.0")
        super().__init__(
            backbone,
            outputs,
            GradientDescent(adaptation.inner_lr),
            ImplicitGradient(proximal, cg_steps, damping),
            replace(adaptation, first_order=True),
            proximal=proximal,
        )
