"""What learners share that classify by cosine similarities times a learned scale."""

from __future__ import annotations

import math

import torch
from torch import nn

from metakd.adaptation.embedding_learner import EmbeddingLearner
from metakd.errors import UserError

__all__ = ["CosineLearner"]


class CosineLearner(EmbeddingLearner):
    """An embedding learner with the scale γ of its cosines as a parameter.

    Args:
        backbone: the student's.
        outputs: not needed: training may use more ways than evaluation.
        scale: γ at first; learned from there.

    Raises:
        UserError: the scale is not positive.
    """

    backbone: nn.Module

    def __init__(self, backbone: nn.Module, outputs: int = 0, *, scale: float = 10.0) -> None:
        super().__init__()
        if not 0.0 < scale < math.inf:
            raise UserError(
                f"algorithm.options.scale={scale:g}: must be above 0; "
                "type algorithm.options.scale=10, the usual value"
            )
        self.backbone = backbone
        self.scale = nn.Parameter(torch.tensor(float(scale)))
