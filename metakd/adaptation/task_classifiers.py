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
