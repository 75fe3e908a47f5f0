"""`algorithm=metabaseline`: a pre-trained embedding, tuned over episodes by the cosine to means."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from metakd.adaptation.embedding_learner import EmbeddingLearner
from metakd.adaptation.task_classifiers import cosine_similarities, prototypes
from metakd.distillation.divergences import widened
from metakd.errors import UserError

__all__ = ["MetaBaseline"]


class MetaBaseline(EmbeddingLearner):
    """Meta-Baseline (Chen et al., 2021, "Exploring simple meta-learning for few-shot learning").

    Logits are γ cos(embed(x), c_k), c_k the mean embedding of class k's support (not normalised
    before) and γ learned. The backbone was trained on whole batches of the meta-train classes
    first (`warmstart`, or a checkpoint; a run without is refused).

    Args:
        backbone: the student's.
        outputs: not needed: training may use more ways than evaluation.
        scale: γ at first; published 10.

    Raises:
        UserError: the scale is not positive.
    """

    backbone: nn.Module

    def __init__(self, backbone: nn.Module, outputs: int = 0, *, scale: float = 10.0) -> None:
        super().__init__()
        if not 0.0 < scale < math.inf:
            raise UserError(
                f"algorithm.options.scale={scale:g}: must be above 0; "
                "type algorithm.options.scale=10, the published value"
            )
        self.backbone = backbone
        self.scale = nn.Parameter(torch.tensor(float(scale)))

    def classify(self, support: Tensor, targets: Tensor, query: Tensor, ways: int) -> Tensor:
        """See `MetricAlgorithm.classify`; computes in float32 also under autocast."""
        with torch.autocast(query.device.type, enabled=False):
            centres = prototypes(widened(support), targets, ways)
            return self.scale * cosine_similarities(widened(query), centres)
