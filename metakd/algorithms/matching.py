"""`algorithm=matching`: attention over the support examples by cosine similarity."""

from __future__ import annotations

import torch
from torch import Tensor

from metakd.adaptation.embedding_learner import CosineLearner
from metakd.adaptation.task_classifiers import cosine_similarities, members
from metakd.distillation.divergences import widened

__all__ = ["MatchingNet"]


class MatchingNet(CosineLearner):
    """Matching networks (Vinyals et al., 2016), without full-context embeddings.

    p(y = k | x) = Σ_{i in class k} a_i with the attention a_i = softmax_i(γ cos(e(x), e(x_i))) over
    the support examples, e the embedding. Logits are the logarithms of the classes' sums of
    exp(γ cos), whose softmax these probabilities are.

    Args:
        backbone: the student's.
        outputs: not needed: training may use more ways than evaluation.
        scale: γ at first; learned from there. Published is a constant 1, whose attention is nearly
            even over few examples.

    Raises:
        UserError: the scale is not positive.
    """

    def classify(self, support: Tensor, targets: Tensor, query: Tensor, ways: int) -> Tensor:
        """See `MetricAlgorithm.classify`; computes in float32 also under autocast."""
        with torch.autocast(query.device.type, enabled=False):
            # Of a query and an example, as much as of a query and a class centre.
            alike = self.scale * cosine_similarities(widened(query), widened(support))
            others = members(targets, ways, alike) == 0  # [tasks, n, ways]
            of_class = alike.unsqueeze(-1).masked_fill(others.unsqueeze(1), -torch.inf)
            return of_class.logsumexp(2)
