"""`algorithm=imaml`: MAML whose outer gradient is that of a minimum of the inner loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from metakd.adaptation.differentiation import Tensors, detached, pullback
from metakd.adaptation.gradient_learner import GradientLearner
from metakd.adaptation.inner_loop import InnerLoop, Task
from metakd.adaptation.outer_gradients import Contribution
from metakd.adaptation.settings import Adaptation
from metakd.adaptation.update_rules import GradientDescent
from metakd.errors import UserError

__all__ = ["IMAML", "ImplicitGradient", "conjugate_gradient"]


@dataclass(frozen=True)
class ImplicitGradient:
    """The implicit gradient of Rajeswaran et al. (2019), equation 6; an `OuterGradient`.

    With φ* where the inner steps end, L̂ the loss on the support set and H = ∇²L̂(φ*), the
    gradient with respect to φ_0 is the solution x of (I + H / (λ + d)) x = ∇_φ L(φ*, query), by
    conjugate gradients with products H·v. It is exact (d = 0) if φ* minimises
    L̂(φ) + λ/2 ‖φ - φ_0‖² and the solver has converged. Memory does not depend on the steps.

    Parameters ω of the objective get both parts of theirs: the direct ∂L/∂ω, and the one by way
    of φ*: -1/(λ + d) · ∂/∂ω (∇_φ L̂ · x). Left out: parameters of the update rule, on which a
    minimum does not depend (their gradient is 0).

    Attributes:
        proximal: λ.
        cg_steps: conjugate gradient steps; each costs one product H·v.
        damping: d, makes the system better conditioned and the solution less exact.
    """

    proximal: float
    cg_steps: int
    damping: float = 0.0

    def __call__(self, loop: InnerLoop, values: Tensors, task: Task, steps: int) -> Contribution:
        """See `OuterGradient`."""
        values = detached(values)
        for moment in loop.adapt(values, task, steps):
            end = moment
        adapted = detached(end.values)

        def query_loss(at: Tensors) -> tuple[Tensor, dict[str, Tensor]]:
            terms = loop.outcome(at, task)
            return terms["loss"], detached(terms)

        direct, _, terms = loop.differentiate(query_loss, adapted, create_graph=False)
        moving = [name for name in values if name.startswith(loop.adapts)]
        scale = 1.0 / (self.proximal + self.damping)
        products = pullback(
            loop.differentiate,
            partial(_support_gradient, loop, adapted, task, moving),
            {name: v for name, v in adapted.items() if not name.startswith("rule.")},
        )

        def system(v: Tensors) -> Tensors:
            curved = products(v)
            return {name: v[name] + scale * curved[name] for name in moving}

        solved = conjugate_gradient(system, {name: direct[name] for name in moving}, self.cg_steps)
        by_way = products(solved)
        gradients = {
            name: solved[name] if name in solved else g - scale * by_way.get(name, 0.0)
            for name, g in direct.items()
        }
        return Contribution(gradients, terms)


def _support_gradient(
    loop: InnerLoop, fixed: Tensors, task: Task, moving: list[str], at: Tensors
) -> Tensors:
    """Return ∇ of the loss on the support set by what adapts, as a function of all values."""
    others = {**fixed, **{name: v for name, v in at.items() if name not in moving}}
    gradients, _, _ = loop.differentiate(
        lambda here: loop.support_loss(others, task.support, here),
        {name: at[name] for name in moving},
        create_graph=True,
    )
    return gradients


def conjugate_gradient(system: Callable[[Tensors], Tensors], right: Tensors, steps: int) -> Tensors:
    """Solve A x = b for a symmetric positive definite A (Hestenes & Stiefel, 1952), from x = b.

    Stands still at the solution, and where a direction of no positive curvature shows that A is
    not positive definite. No control flow depends on values, so it runs under torch.func.vmap.

    Args:
        system: x to A x.
        right: b, named tensors.
        steps: number of steps; at most as many as b has entries can be of use.
    """
    x = right
    residual = _add(right, system(x), -1.0)
    direction, square = residual, _dot(residual, residual)
    tiny = torch.finfo(square.dtype).tiny
    for _ in range(steps):
        image = system(direction)
        curvature = _dot(direction, image)
        going = (curvature > tiny) & (square > tiny)
        length = torch.where(going, square / torch.where(going, curvature, 1.0), 0.0)
        x, residual = _add(x, direction, length), _add(residual, image, -length)
        after = _dot(residual, residual)
        ratio = torch.where(going, after / torch.where(going, square, 1.0), 0.0)
        direction = _add(residual, direction, ratio)
        # Once it stands still it does so for good: `square` stays at 0.
        square = torch.where(going, after, 0.0)
    return x


def _dot(a: Tensors, b: Tensors) -> Tensor:
    return torch.stack([(a[name] * b[name]).sum() for name in a]).sum()


def _add(a: Tensors, b: Tensors, times: Tensor | float) -> Tensors:
    return {name: value + times * b[name] for name, value in a.items()}


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
