"""`algorithm=ridge`: a ridge regression on the support embeddings, solved in closed form (R2D2)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from metakd.adaptation.embedding_learner import EmbeddingLearner
from metakd.adaptation.task_classifiers import members
from metakd.distillation.divergences import widened
from metakd.errors import UserError

__all__ = ["Ridge", "ridge_weights"]


def ridge_weights(inputs: Tensor, goals: Tensor, penalty: Tensor) -> Tensor:
    """Return W = argmin ‖X W - Y‖² + penalty · ‖W‖², [tasks, size, outputs].

    Solves (XᵀX + penalty·I) W = XᵀY, or with fewer examples than dimensions the smaller system of
    Woodbury's identity, W = Xᵀ (X Xᵀ + penalty·I)⁻¹ Y. Differentiable in everything, twice, too.

    Args:
        inputs: X [tasks, n, size].
        goals: Y [tasks, n, outputs].
        penalty: scalar above 0.
    """
    flipped = inputs.transpose(1, 2)
    few = inputs.shape[1] < inputs.shape[2]
    system = inputs @ flipped if few else flipped @ inputs
    system = system + penalty * torch.eye(
        system.shape[-1], dtype=system.dtype, device=system.device
    )
    # `solve` raises on a singular matrix; here NaN goes on to the loss, where it is dealt with.
    if few:
        return flipped @ torch.linalg.solve_ex(system, goals)[0]
    return torch.linalg.solve_ex(system, flipped @ goals)[0]


class Ridge(EmbeddingLearner):
    """R2D2 (Bertinetto et al., 2019, "Meta-learning with differentiable closed-form solvers").

    W = argmin ‖X W - Y‖² + λ‖W‖² with the support embeddings X and their one-hot labels Y; logits
    are α · embed(x) W + β. λ (kept as its logarithm, so above 0), α and β are learned along with
    the backbone. β is one number for all classes, as published: a softmax does not see it.

    Args:
        backbone: the student's.
        outputs: not needed: training may use more ways than evaluation.
        regularizer: λ at first; published 50.
        scale: α at first.

    Raises:
        UserError: the regulariser is not positive, or the scale is 0 or not finite.
    """

    backbone: nn.Module

    def __init__(
        self,
        backbone: nn.Module,
        outputs: int = 0,
        *,
        regularizer: float = 50.0,
        scale: float = 10.0,
    ) -> None:
        super().__init__()
        for name, value in (("regularizer", regularizer), ("scale", scale)):
            if not 0.0 < value < math.inf:
                usual = 50 if name == "regularizer" else 10
                raise UserError(
                    f"algorithm.options.{name}={value:g}: must be above 0; "
                    f"type algorithm.options.{name}={usual}, the usual value"
                )
        self.backbone = backbone
        self.log_regularizer = nn.Parameter(torch.tensor(math.log(regularizer)))
        self.scale = nn.Parameter(torch.tensor(float(scale)))
        self.bias = nn.Parameter(torch.tensor(0.0))

    def classify(self, support: Tensor, targets: Tensor, query: Tensor, ways: int) -> Tensor:
        """See `MetricAlgorithm.classify`; computes in float32 also under autocast."""
        with torch.autocast(query.device.type, enabled=False):
            support, query = widened(support), widened(query)
            goals = members(targets, ways, support)
            weights = ridge_weights(support, goals, self.log_regularizer.exp())
            return self.scale * (query @ weights) + self.bias
