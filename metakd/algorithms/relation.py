"""`algorithm=relation`: a learned network scores how well a query goes with a class."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metakd.algorithms.embedding_learner import EmbeddingLearner
from metakd.algorithms.inner_loop import accuracy
from metakd.data.tasks import ExampleBatch, TaskBatch
from metakd.distillation.divergences import widened
from metakd.distillation.objective import Answer, Objective, TaskAnswers
from metakd.errors import UserError, nearest

__all__ = ["Relation", "squared_score_error"]

_LOSSES = ("mse", "cross_entropy")
_SCORES = ("summed", "vote")


def squared_score_error(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Return the mean of (σ(logit) - goal)² over examples and classes; Sung et al., 2018.

    Args:
        logits: [..., n, ways], scores before the sigmoid.
        targets: [..., n] int64; the goal is 1 for the true class and 0 for the others.
        label_smoothing: this share of the goal is spread evenly over all classes.
    """
    ways = logits.shape[-1]
    goal = F.one_hot(targets, ways).to(logits.dtype)
    goal = (1.0 - label_smoothing) * goal + label_smoothing / ways
    return F.mse_loss(logits.sigmoid(), goal)


class Relation(EmbeddingLearner):
    """Relation networks (Sung et al., 2018; method.md section 5).

    A perceptron of two hidden layers maps (what stands for a class, a query's embedding),
    concatenated, to a score, and a sigmoid maps that into [0, 1]. (The published one has
    convolutions and sees feature maps; here, as everywhere, an embedding is a vector.) Logits,
    which a teacher may soften, are the scores before the sigmoid.

    Args:
        backbone: the student's.
        outputs: not needed: training may use more ways than evaluation.
        loss: what the labels ask for: `mse`, the squared error of the scores to 1 or 0
            (published), or `cross_entropy`.
        score: `summed`: a class is the sum of its support embeddings (published; train with the
            shots of evaluation), or `vote`: every support example is scored alone, and a class's
            score in [0, 1] is the mean of its examples'.
        width: of the hidden layers.

    Raises:
        UserError: no such loss or score, or no width.
    """

    backbone: nn.Module

    def __init__(
        self,
        backbone: nn.Module,
        outputs: int = 0,
        *,
        loss: str = "mse",
        score: str = "summed",
        width: int = 64,
    ) -> None:
        super().__init__()
        for name, value, known in (("loss", loss, _LOSSES), ("score", score, _SCORES)):
            if value not in known:
                raise UserError(
                    f"algorithm.options.{name}={value}: choose one of {', '.join(known)}."
                    + nearest(value, known)
                )
        if width < 1:
            raise UserError(
                f"algorithm.options.width={width}: must be at least 1; "
                "type algorithm.options.width=64"
            )
        self.backbone = backbone
        self.loss = loss
        self.score = score
        size = int(backbone.embedding_size)  # type: ignore[arg-type]
        self.joint = nn.Linear(2 * size, width)
        self.judge = nn.Sequential(
            nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1)
        )

    def label_loss(self, outputs: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """See `Algorithm.label_loss`: of the scores, unless `loss` is `cross_entropy`."""
        if self.loss == "mse":
            return squared_score_error(outputs, targets, label_smoothing)
        return super().label_loss(outputs, targets, label_smoothing)

    def accumulate(
        self,
        batch: TaskBatch | ExampleBatch,
        objective: Objective,
        answers: TaskAnswers | Answer | None,
    ) -> dict[str, Tensor]:
        """See `Algorithm.accumulate`; a teacher acts on the query set."""
        assert isinstance(batch, TaskBatch) and not isinstance(answers, Answer)
        prediction = self(batch.support, batch.support_targets, batch.query, batch.ways)
        answer = None if answers is None else answers.query
        with objective.judged_by(self.label_loss):
            terms = objective(prediction, batch.query_targets, answer)
        terms["loss"].backward()
        report = terms | accuracy(prediction.logits, batch.query_targets)
        return {name: term.detach() for name, term in report.items()}

    def classify(self, support: Tensor, targets: Tensor, query: Tensor, ways: int) -> Tensor:
        """See `MetricAlgorithm.classify`; computes in float32 also under autocast."""
        with torch.autocast(query.device.type, enabled=False):
            support, query = widened(support), widened(query)
            member = F.one_hot(targets, ways)
            if self.score == "summed":
                return self._scores(member.to(support.dtype).transpose(1, 2) @ support, query)
            return _voted(self._scores(support, query), member.bool())

    def _scores(self, shown: Tensor, query: Tensor) -> Tensor:
        """Return scores before the sigmoid [tasks, m, k] of shown [tasks, k, size]."""
        of_shown, of_query = self.joint.weight.chunk(2, dim=1)
        # A linear map of a concatenation is a sum: each half is computed once, not for each pair.
        left = F.linear(shown, of_shown).unsqueeze(1)
        right = F.linear(query, of_query, self.joint.bias).unsqueeze(2)
        scores: Tensor = self.judge(left + right).squeeze(-1)
        return scores


def _voted(scores: Tensor, member: Tensor) -> Tensor:
    """Return l with σ(l) = the mean of σ(score) over each class's examples, [tasks, m, ways].

    From logarithms of sums, so that scores far from 0 lose nothing.

    Args:
        scores: [tasks, m, n].
        member: [tasks, n, ways] bool.
    """
    others = ~member.unsqueeze(1)

    def total(logarithms: Tensor) -> Tensor:
        return logarithms.unsqueeze(-1).masked_fill(others, -torch.inf).logsumexp(2)

    return total(F.logsigmoid(scores)) - total(F.logsigmoid(-scores))
