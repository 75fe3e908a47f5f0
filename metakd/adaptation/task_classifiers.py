"""Classifiers fitted to a task's support embeddings; pure functions, all tasks at once.

Embeddings are support [tasks, n, size] and query [tasks, m, size], labels [tasks, n] int64 in
0 … ways-1; logits are [tasks, m, ways]. They compute in float32 at least, autocast or not.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from metakd.distillation.divergences import widened

__all__ = [
    "centroid_logits",
    "cosine_similarities",
    "logistic_logits",
    "members",
    "prototypes",
    "squared_distances",
]


def members(targets: Tensor, ways: int, like: Tensor) -> Tensor:
    """Return 1 where an example is of a class and else 0, [..., n, ways].

    Args:
        targets: [..., n] int64.
        ways: number of classes.
        like: whose number format and device the result has.
    """
    # Not F.one_hot: it looks at values, which neither vmap over a gradient nor torch.export can.
    return torch.eye(ways, dtype=like.dtype, device=like.device)[targets]


def prototypes(support: Tensor, targets: Tensor, ways: int) -> Tensor:
    """Return each class's mean support embedding, [tasks, ways, size]."""
    member = members(targets, ways, support)
    return member.transpose(1, 2) @ support / member.sum(1).unsqueeze(-1)


def squared_distances(query: Tensor, centres: Tensor) -> Tensor:
    """Return squared Euclidean distances [tasks, m, ways] of queries to centres, at least 0."""
    products = query @ centres.transpose(1, 2)
    lengths = query.square().sum(-1).unsqueeze(-1) + centres.square().sum(-1).unsqueeze(-2)
    return (lengths - 2.0 * products).clamp_min(0.0)


def cosine_similarities(query: Tensor, centres: Tensor) -> Tensor:
    """Return cosines [tasks, m, ways] between queries and centres."""
    return F.normalize(query, dim=-1) @ F.normalize(centres, dim=-1).transpose(1, 2)


def centroid_logits(
    support: Tensor, targets: Tensor, query: Tensor, ways: int, scale: float = 10.0
) -> Tensor:
    """Return `scale` times the cosine to each class's centroid of normalised embeddings.

    Nothing is centred: a mean would have to come from somewhere, and the support set of one shot
    is too small for it. `scale` moves no decision, only the confidence.
    """
    with torch.autocast(query.device.type, enabled=False):
        support, query = widened(support), widened(query)
        centres = prototypes(F.normalize(support, dim=-1), targets, ways)
        return scale * cosine_similarities(query, centres)


def logistic_logits(
    support: Tensor,
    targets: Tensor,
    query: Tensor,
    ways: int,
    penalty: float = 1.0,
    iterations: int = 300,
) -> Tensor:
    """Return logits of a multinomial logistic regression on normalised embeddings.

    Minimises Σ cross-entropy + penalty / 2 ‖W‖² with a free intercept, as in RFS (Tian et al.,
    2020; scikit-learn's C is 1 / penalty). By the representer theorem W is a combination of the n
    support embeddings, so the problem is solved in n numbers a class, by accelerated gradient
    descent with restarts: a fixed number of steps, no randomness.
    """
    with torch.autocast(query.device.type, enabled=False):
        x, asked = F.normalize(widened(support), dim=-1), F.normalize(widened(query), dim=-1)
        gram = x @ x.transpose(1, 2)
        goal = members(targets, ways, x)
        tasks, n = targets.shape
        # The Hessian of the softmax is at most 1/2; a Gram matrix is at most its largest row sum.
        bound = gram.abs().sum(-1).amax(-1) + n
        step = (1.0 / (penalty + 0.5 * bound)).view(tasks, 1, 1)
        weight = x.new_zeros(tasks, n, ways)
        bias = x.new_zeros(tasks, 1, ways)
        ahead, ahead_bias = weight, bias
        pace = x.new_ones(tasks, 1, 1)
        for _ in range(iterations):
            error = (gram @ ahead + ahead_bias).softmax(-1) - goal
            gradient = penalty * ahead + error
            moved = ahead - step * gradient
            moved_bias = ahead_bias - step * error.sum(1, keepdim=True)
            change, change_bias = moved - weight, moved_bias - bias
            # Restart a task's momentum where it points uphill (O'Donoghue & Candès, 2015).
            uphill = ((ahead - moved) * (gram @ change)).sum((1, 2), keepdim=True) + (
                (ahead_bias - moved_bias) * change_bias
            ).sum((1, 2), keepdim=True) > 0
            pace = torch.where(uphill, torch.ones_like(pace), pace)
            faster = 0.5 * (1.0 + (1.0 + 4.0 * pace.square()).sqrt())
            momentum = (pace - 1.0) / faster
            ahead, ahead_bias = moved + momentum * change, moved_bias + momentum * change_bias
            weight, bias, pace = moved, moved_bias, faster
        return asked @ (x.transpose(1, 2) @ weight) + bias
