"""The outer gradient at a minimum of the inner loss, without a look at the way there (iMAML)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from metakd.adaptation.differentiation import Tensors, detached, pullback
from metakd.adaptation.inner_loop import InnerLoop, Task
from metakd.adaptation.outer_gradients import Contribution

__all__ = ["ImplicitGradient", "conjugate_gradient"]


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
        moving = [name for name in values if loop.adapts(name)]
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
