"""`algorithm=metabaseline`: a pre-trained embedding, tuned over episodes by the cosine to means."""

from __future__ import annotations

import torch
from torch import Tensor

from metakd.adaptation.embedding_learner import CosineLearner
from metakd.adaptation.task_classifiers import cosine_similarities, prototypes
from metakd.distillation.divergences import widened

__all__ = ["MetaBaseline"]


class MetaBaseline(CosineLearner):
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

    def classify(self, support: Tensor, targets: Tensor, query: Tensor, ways: int) -> Tensor:
        """See `MetricAlgorithm.classify`; computes in float32 also under autocast."""
        with torch.autocast(query.device.type, enabled=False):
            centres = prototypes(widened(support), targets, ways)
            return self.scale * cosine_similarities(widened(query), centres)
