"""The ridge regression of `algorithm=ridge` by matrix products alone.

No runtime but torch solves systems of equations; all multiply matrices.
"""

from __future__ import annotations

import torch
from torch import Tensor

from metakd.algorithms.ridge import Ridge
from metakd.exporting.graphs.metric import MetricHead

__all__ = ["RidgeHead", "inverse"]

_ROUNDS = 30
"""Enough for eigenvalues 10⁷ apart, where float32 has no digits left."""


def inverse(matrix: Tensor, least: Tensor) -> Tensor:
    """Return the inverse of a symmetric matrix by Newton's iteration.

    X ← X (2 I - A X) (Schulz 1933) squares the error I - A X in each round. It starts from
    X = 2 / (least + most) I, most the largest sum of a row, where the error's eigenvalues lie
    between -1 and 1.

    Args:
        matrix: A [n, n], all eigenvalues at least `least`.
        least: scalar above 0.
    """
    twice = 2.0 * torch.eye(matrix.shape[0], dtype=matrix.dtype, device=matrix.device)
    found = twice / (least + matrix.abs().sum(1).amax(0))
    for _ in range(_ROUNDS):
        found = found @ (twice - matrix @ found)
    return found


class RidgeHead(MetricHead):
    """The same logits as `Ridge.classify`, always from the system of the examples [n, n]."""

    def forward(self, features: Tensor, labels: Tensor, query: Tensor) -> Tensor:
        """See `MetricHead`."""
        ridge = self.learner
        assert isinstance(ridge, Ridge)
        penalty = ridge.log_regularizer.exp()
        gram = features @ features.T
        system = gram + penalty * torch.eye(gram.shape[0], dtype=gram.dtype, device=gram.device)
        answers = (query @ features.T) @ (inverse(system, penalty) @ labels)
        return ridge.scale * answers + ridge.bias
