"""An embedding learner whose embeddings are changed before they are compared, at evaluation."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from metakd.adaptation.algorithm import MetricAlgorithm
from metakd.adaptation.embedding_learner import EmbeddingLearner
from metakd.data.tasks import TaskBatch
from metakd.distillation.divergences import unit, widened

__all__ = ["Judged", "Sphere"]


class Sphere(nn.Module):
    """Embeddings less a mean, scaled to length 1 (CL2N of Wang et al., "SimpleShot", 2019).

    Args:
        mean: [size], of the network's embeddings of the meta-train images.
    """

    mean: Tensor

    def __init__(self, mean: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return embeddings [..., size] on the sphere, float32 at least."""
        return unit(widened(embeddings) - self.mean)


class Judged(EmbeddingLearner):
    """A trained learner that compares embeddings, with what evaluation adds to it.

    Args:
        learner: the trained one; left as it is.
        mean: [size], by which embeddings are centred before they are scaled to length 1; None:
            they stay as they are.
        versions: `predict` is given so many versions of each support example, next to each other;
            the example's embedding is the mean of theirs.
    """

    def __init__(
        self, learner: MetricAlgorithm, mean: Tensor | None = None, versions: int = 1
    ) -> None:
        super().__init__()
        self.learner = learner
        self.sphere = None if mean is None else Sphere(mean)
        self.versions = versions

    @property
    def backbone(self) -> nn.Module:  # type: ignore[override]
        """The learner's backbone."""
        return self.learner.backbone

    def deployed(self) -> Sequence[nn.Module]:
        """See `Algorithm.deployed`: what the learner deploys, and the mean."""
        own = [] if self.sphere is None else [self.sphere]
        return [*self.learner.deployed(), *own]

    def classify(self, support: Tensor, targets: Tensor, query: Tensor, ways: int) -> Tensor:
        """See `MetricAlgorithm.classify`."""
        if self.sphere is not None:
            support, query = self.sphere(support), self.sphere(query)
        return self.learner.classify(support, targets, query, ways)

    def _embed(self, tasks: TaskBatch, batchnorm: str) -> tuple[Tensor, Tensor]:
        support, query = super()._embed(tasks, batchnorm)
        return support.unflatten(1, (-1, self.versions)).mean(2), query
