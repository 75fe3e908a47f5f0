"""What learners share that embed examples once and classify by their embeddings."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from metakd.adaptation.algorithm import MetricAlgorithm, descended
from metakd.adaptation.settings import BATCHNORM
from metakd.adaptation.task_classifiers import prototypes
from metakd.data.tasks import Batch, TaskBatch
from metakd.distillation.divergences import widened
from metakd.distillation.objective import Answer, Answers, Objective
from metakd.errors import UserError, check_word
from metakd.models.features import recorded_features
from metakd.models.network import Prediction
from metakd.models.normalization import (
    batchnorm_mode,
    forget_statistics,
    has_batchnorm,
    has_running_statistics,
)

__all__ = ["CosineLearner", "EmbeddingLearner", "embed_tasks"]


def embed_tasks(backbone: nn.Module, support: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
    """Embed the examples of all tasks in one forward pass.

    Args:
        backbone: maps [n, *example] to [n, size].
        support: [tasks, n, *example].
        query: [tasks, m, *example].

    Returns:
        embeddings [tasks, n, size] and [tasks, m, size].
    """
    tasks, n = support.shape[:2]
    together = torch.cat([support, query], dim=1).flatten(0, 1)
    embeddings = backbone(together).unflatten(0, (tasks, -1))
    return embeddings[:, :n], embeddings[:, n:]


class EmbeddingLearner(MetricAlgorithm):
    """Predicts by `classify` on embeddings; batch norm decides only how those are made.

    Inductive: running statistics, or, for a network that keeps none, each task's support set's.
    Transductive: the statistics of each task's examples, support and query together.
    """

    shares_tasks = True

    def over_batch(self) -> Sequence[nn.Module]:
        """See `Algorithm.over_batch`: all tasks are embedded in one pass."""
        return (self,)

    def forward(
        self,
        support: Tensor,
        targets: Tensor,
        query: Tensor,
        ways: int,
        stages: Collection[str] = (),
        with_prototypes: bool = False,
    ) -> Prediction:
        """Return logits [tasks, m, ways], embeddings [tasks, m, size], features of the query sets.

        All tasks are embedded in one forward pass, batch norm as the mode of the module says.

        Args:
            support: [tasks, n, *example].
            targets: [tasks, n] int64.
            query: [tasks, m, *example].
            ways: classes of a task.
            stages: whose features are wanted.
            with_prototypes: give the mean support embedding of each class, too, as the features
                `prototypes` [tasks, ways, size].
        """
        tasks, n = support.shape[:2]
        with recorded_features(self.backbone, stages) as found:
            shown, asked = embed_tasks(self.backbone, support, query)
        features = {name: f.unflatten(0, (tasks, -1))[:, n:] for name, f in found.items()}
        if with_prototypes:
            features["prototypes"] = prototypes(widened(shown), targets, ways)
        return Prediction(self.classify(shown, targets, asked, ways), asked, features)

    def accumulate(self, batch: Batch, objective: Objective, answers: Answers) -> dict[str, Tensor]:
        """See `Algorithm.accumulate`; trains on episodes, and a teacher acts on the query set."""
        assert isinstance(batch, TaskBatch) and not isinstance(answers, Answer)
        prediction = self(
            batch.support,
            batch.support_targets,
            batch.query,
            batch.ways,
            objective.stages,
            objective.compares_supports,
        )
        answer = None if answers is None else answers.query
        with objective.judged_by(self.label_loss):
            terms = objective(prediction, batch.query_targets, answer)
        return descended(terms, prediction.logits, batch.query_targets)

    @torch.no_grad()
    def predict(
        self, tasks: TaskBatch, steps: Sequence[int] = (0,), batchnorm: str = "inductive"
    ) -> Tensor:
        """See `Algorithm.predict`; returns [1, tasks, ways * queries, ways]."""
        check_word("algorithm.batchnorm", batchnorm, BATCHNORM)
        with _evaluating(self.backbone):
            support, query = self._embed(tasks, batchnorm)
        return self.classify(support, tasks.support_targets, query, tasks.ways).unsqueeze(0)

    def _embed(self, tasks: TaskBatch, batchnorm: str) -> tuple[Tensor, Tensor]:
        backbone, support, query = self.backbone, tasks.support, tasks.query
        if not has_batchnorm(backbone):
            return embed_tasks(backbone, support, query)
        if batchnorm == "inductive" and has_running_statistics(backbone):
            with batchnorm_mode(backbone, "running"):
                return embed_tasks(backbone, support, query)
        shown, asked = [], []
        for one_support, one_query in zip(support.split(1), query.split(1), strict=True):
            if batchnorm == "transductive":
                with batchnorm_mode(backbone, "batch"):
                    s, q = embed_tasks(backbone, one_support, one_query)
            else:
                with batchnorm_mode(backbone, "record"):
                    s = backbone(one_support[0]).unsqueeze(0)
                with batchnorm_mode(backbone, "recorded"):
                    q = backbone(one_query[0]).unsqueeze(0)
            shown.append(s)
            asked.append(q)
        forget_statistics(backbone)
        return torch.cat(shown), torch.cat(asked)


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


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Put `module` in evaluation mode; every submodule's own mode comes back."""
    before = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for submodule, training in before:
            submodule.training = training
