"""A multinomial logistic regression on a task's embeddings, step by step; all tasks at once.

By the representer theorem the weights W are a combination of the n support embeddings, so the
problem is solved in n numbers a class, by accelerated gradient descent with restarts: a fixed
number of steps, no randomness. Shapes are those of `metakd.adaptation.task_classifiers`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from metakd.adaptation.task_classifiers import members
from metakd.distillation.divergences import widened

__all__ = ["ITERATIONS", "Fit", "first_fit", "logistic_logits", "next_fit", "step_size"]

ITERATIONS = 300
"""Steps of a fit."""


class Fit(NamedTuple):
    """Where the descent stands.

    Attributes:
        weight: of each support embedding in W, [tasks, n, ways].
        bias: intercepts [tasks, 1, ways].
        ahead: the weight that momentum carries on to.
        ahead_bias: likewise.
        pace: from which momentum follows, [tasks, 1, 1].
    """

    weight: Tensor
    bias: Tensor
    ahead: Tensor
    ahead_bias: Tensor
    pace: Tensor


def logistic_logits(
    support: Tensor,
    targets: Tensor,
    query: Tensor,
    ways: int,
    penalty: float = 1.0,
    iterations: int = ITERATIONS,
) -> Tensor:
    """Return logits of a multinomial logistic regression on normalised embeddings.

    Minimises Σ cross-entropy + penalty / 2 ‖W‖² with a free intercept, as in RFS (Tian et al.,
    2020; scikit-learn's C is 1 / penalty).
    """
    with torch.autocast(query.device.type, enabled=False):
        x, asked = F.normalize(widened(support), dim=-1), F.normalize(widened(query), dim=-1)
        gram = x @ x.transpose(1, 2)
        goal = members(targets, ways, x)
        size, fit = step_size(gram, penalty), first_fit(goal)
        for _ in range(iterations):
            fit = next_fit(fit, gram, goal, size, penalty)
        return asked @ (x.transpose(1, 2) @ fit.weight) + fit.bias


def step_size(gram: Tensor, penalty: float) -> Tensor:
    """Return the size of a step, [tasks, 1, 1], at which the loss cannot rise.

    Args:
        gram: products of the support embeddings [tasks, n, n].
        penalty: λ.
    """
    # The Hessian of the softmax is at most 1/2; a Gram matrix is at most its largest row sum.
    bound = gram.abs().sum(-1).amax(-1) + gram.shape[1]
    return (1.0 / (penalty + 0.5 * bound)).view(gram.shape[0], 1, 1)


def first_fit(goal: Tensor) -> Fit:
    """Return where the descent begins.

    Args:
        goal: one-hot labels [tasks, n, ways].
    """
    weight = torch.zeros_like(goal)
    bias = torch.zeros_like(goal[:, :1])
    return Fit(weight, bias, weight, bias, torch.ones_like(bias[..., :1]))


def next_fit(fit: Fit, gram: Tensor, goal: Tensor, size: Tensor, penalty: float) -> Fit:
    """Return where the descent stands after a step.

    Args:
        fit: before it.
        gram: products of the support embeddings [tasks, n, n].
        goal: one-hot labels [tasks, n, ways].
        size: of the step [tasks, 1, 1].
        penalty: λ.
    """
    error = (gram @ fit.ahead + fit.ahead_bias).softmax(-1) - goal
    gradient = penalty * fit.ahead + error
    moved = fit.ahead - size * gradient
    moved_bias = fit.ahead_bias - size * error.sum(1, keepdim=True)
    change, change_bias = moved - fit.weight, moved_bias - fit.bias
    # Restart a task's momentum where it points uphill (O'Donoghue & Candès, 2015).
    uphill = ((fit.ahead - moved) * (gram @ change)).sum((1, 2), keepdim=True) + (
        (fit.ahead_bias - moved_bias) * change_bias
    ).sum((1, 2), keepdim=True) > 0
    pace = torch.where(uphill, torch.ones_like(fit.pace), fit.pace)
    faster = 0.5 * (1.0 + (1.0 + 4.0 * pace.square()).sqrt())
    momentum = (pace - 1.0) / faster
    ahead, ahead_bias = moved + momentum * change, moved_bias + momentum * change_bias
    return Fit(moved, moved_bias, ahead, ahead_bias, faster)
