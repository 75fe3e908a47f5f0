"""`algorithm=protonet`: classify by the distance to the mean of each class's support embeddings."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from metakd.adaptation.embedding_learner import EmbeddingLearner
from metakd.adaptation.task_classifiers import cosine_similarities, prototypes, squared_distances
from metakd.distillation.divergences import widened
from metakd.errors import check_word

__all__ = ["ProtoNet"]

_DISTANCES = ("euclidean", "euclidean_root", "cosine")
_FIRST_SCALE = 10.0
_SMALLEST_SQUARE = 1e-8


class ProtoNet(EmbeddingLearner):
    """Prototypical networks (Snell et al., 2017; method.md section 5).

    c_k = mean of the embeddings of class k's support; p(y=k|x) ∝ exp(-d(embed(x), c_k)). There is
    no head, so training may use more ways than evaluation. The whole meta-batch is embedded in
    one forward pass; in training its statistics are those of batch norm.

    Args:
        backbone: the student's.
        outputs: not needed.
        distance: `euclidean` (squared, the published one), `euclidean_root`, or `cosine` (logits
            are the cosine times a learned scale, at first 10).

    Raises:
        UserError: no such distance.
    """

    backbone: nn.Module

    def __init__(
        self, backbone: nn.Module, outputs: int = 0, *, distance: str = "euclidean"
    ) -> None:
        super().__init__()
        check_word("algorithm.distance", distance, _DISTANCES)
        self.backbone = backbone
        self.distance = distance
        self.scale = nn.Parameter(torch.tensor(_FIRST_SCALE)) if distance == "cosine" else None

    def classify(self, support: Tensor, targets: Tensor, query: Tensor, ways: int) -> Tensor:
        """See `MetricAlgorithm.classify`; computes in float32 also under autocast."""
        with torch.autocast(query.device.type, enabled=False):
            support, query = widened(support), widened(query)
            centres = prototypes(support, targets, ways)
            if self.scale is not None:
                return self.scale * cosine_similarities(query, centres)
            squares = squared_distances(query, centres)
            if self.distance == "euclidean":
                return -squares
            return -squares.clamp_min(_SMALLEST_SQUARE).sqrt()  # the root has no slope at 0
