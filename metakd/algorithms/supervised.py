"""`algorithm=supervised`: no meta-learning; whole batches, then a classifier for each task."""

from __future__ import annotations

from torch import Tensor, nn

from metakd.adaptation.algorithm import descended
from metakd.adaptation.embedding_learner import EmbeddingLearner
from metakd.adaptation.logistic_regression import logistic_logits
from metakd.adaptation.task_classifiers import centroid_logits
from metakd.data.tasks import Batch, ExampleBatch
from metakd.distillation.objective import Answers, Objective, TaskAnswers
from metakd.errors import UserError, check_word
from metakd.models.network import Network

__all__ = ["Supervised"]

_HEADS = ("centroid", "linear")


class Supervised(EmbeddingLearner):
    """The transfer baseline (method.md section 5): what a meta-algorithm has to beat.

    Trains backbone and a linear head to tell the meta-train classes apart. A task is then solved
    on frozen embeddings: by the nearest centroid in cosine, or by a logistic regression on
    normalised embeddings (Tian et al., 2020).

    Args:
        backbone: the student's.
        outputs: classes of the meta-train split.
        head: `centroid` or `linear`.
        penalty: of the logistic regression, λ of Σ cross-entropy + λ/2 ‖W‖².

    Raises:
        UserError: no such head, or the penalty is not positive.
    """

    def __init__(
        self, backbone: nn.Module, outputs: int, *, head: str = "centroid", penalty: float = 1.0
    ) -> None:
        super().__init__()
        check_word("algorithm.head", head, _HEADS)
        if not penalty > 0:
            raise UserError(f"algorithm.options.penalty={penalty}: it has to be above 0; try 1.0")
        self.network = Network(backbone, outputs)
        self.head = head
        self.penalty = penalty

    @property
    def backbone(self) -> nn.Module:  # type: ignore[override]
        """The student's backbone."""
        return self.network.backbone

    def deployed(self) -> list[nn.Module]:
        """See `Algorithm.deployed`: the head over base classes stays behind."""
        return [self.backbone]

    def whole_network(self) -> Network:
        """See `Algorithm.whole_network`."""
        return self.network

    def accumulate(self, batch: Batch, objective: Objective, answers: Answers) -> dict[str, Tensor]:
        """See `Algorithm.accumulate`; accuracy is that on the base classes of the batch."""
        assert isinstance(batch, ExampleBatch) and not isinstance(answers, TaskAnswers)
        prediction = self.network(batch.examples, objective.stages)
        terms = objective(prediction, batch.labels, answers)
        return descended(terms, prediction.logits, batch.labels)

    def classify(self, support: Tensor, targets: Tensor, query: Tensor, ways: int) -> Tensor:
        """See `MetricAlgorithm.classify`."""
        if self.head == "linear":
            return logistic_logits(support, targets, query, ways, self.penalty)
        return centroid_logits(support, targets, query, ways)
