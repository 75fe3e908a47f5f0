"""What a stage may add to an update beside labels and teacher: a head that tells quarter turns."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metakd.adaptation.algorithm import Algorithm, descended
from metakd.adaptation.embedding_learner import EmbeddingLearner
from metakd.algorithms.supervised import Supervised
from metakd.data.counter_random import stream_key
from metakd.data.quarter_turns import TURNS, quarter_turns, turned
from metakd.data.tasks import Batch, TaskBatch
from metakd.distillation.divergences import widened
from metakd.distillation.objective import Answer, Answers, Objective, TaskAnswers
from metakd.models.network import Prediction

__all__ = ["NOTHING", "Enriched", "Ingredients", "enriched"]


@dataclass(frozen=True)
class Ingredients:
    """What a stage adds to its updates.

    Attributes:
        rotation_weight: of the cross-entropy of telling by which quarter turn a picture was
            turned; 0: there is no such head.
    """

    rotation_weight: float = 0.0


NOTHING = Ingredients()


def enriched(learner: Algorithm, added: Ingredients, *, seed: int, stage: str) -> Algorithm:
    """Return the learner that trains `learner` with what a stage adds; itself if that is nothing.

    Args:
        learner: one that embeds examples, where something is added.
        added: what.
        seed: names the stream of random choices, together with
        stage: that trains it.
    """
    if added == NOTHING:
        return learner
    assert isinstance(learner, EmbeddingLearner)
    device = next(learner.parameters()).device
    return Enriched(learner, added, seed=seed, stage=stage).to(device)


class Enriched(EmbeddingLearner):
    """A learner that embeds, in training with a linear head beside it that tells quarter turns.

    Each update sees the batch's pictures (of tasks: the query sets) once more in the same forward
    pass, each turned by 0, 90, 180 or 270 degrees as the update's key decides (Gidaris et al.
    2018, 2019). The loss on the labels is the mean over both kinds of pictures; added is
    `rotation_weight` times the cross-entropy of the turn, over the turned ones. A teacher's terms
    are of the pictures as they are.

    The head is trained and saved with the learner, and is no part of it.

    Args:
        learner: what is trained.
        added: with what.
        seed: names the stream of random choices, together with
        stage: that trains it.
    """

    def __init__(
        self, learner: EmbeddingLearner, added: Ingredients, *, seed: int, stage: str
    ) -> None:
        super().__init__()
        self.learner = learner
        self._added, self._seed, self._stage, self._step = added, seed, stage, 0
        size = int(learner.backbone.embedding_size)  # type: ignore[arg-type]
        self.rotation = nn.utils.skip_init(nn.Linear, size, TURNS)
        drawn = torch.Generator().manual_seed(stream_key(seed, stage, "rotation head"))
        for parameter in self.rotation.parameters():  # as nn.Linear does, whatever was drawn before
            nn.init.uniform_(parameter, -(size**-0.5), size**-0.5, generator=drawn)

    @property
    def backbone(self) -> nn.Module:  # type: ignore[override]
        """The student's backbone."""
        return self.learner.backbone

    def begin(self, step: int, steps: int) -> None:
        """See `Algorithm.begin`: the step decides the turns."""
        self._step = step
        self.learner.begin(step, steps)

    def label_loss(self, outputs: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """See `Algorithm.label_loss`."""
        return self.learner.label_loss(outputs, targets, label_smoothing)

    def classify(self, support: Tensor, targets: Tensor, query: Tensor, ways: int) -> Tensor:
        """See `MetricAlgorithm.classify`."""
        return self.learner.classify(support, targets, query, ways)

    def accumulate(self, batch: Batch, objective: Objective, answers: Answers) -> dict[str, Tensor]:
        """See `Algorithm.accumulate`; further terms `loss/rotation`, `student/rotation_accuracy`.

        On whole batches for a learner of these, else on episodes.
        """
        key = stream_key(self._seed, self._stage, "rotation", self._step)
        if isinstance(batch, TaskBatch):
            assert not isinstance(answers, Answer) and batch.query_index is not None
            labels, answer = batch.query_targets, None if answers is None else answers.query
            turns = quarter_turns(key, batch.query_index)
            query = torch.cat([batch.query, turned(batch.query, turns)], dim=1)
            prediction = self.learner(
                batch.support,
                batch.support_targets,
                query,
                batch.ways,
                objective.stages,
                objective.compares_supports,
            )
        else:
            assert isinstance(self.learner, Supervised) and not isinstance(answers, TaskAnswers)
            labels, answer = batch.labels, answers
            turns = quarter_turns(key, batch.index)
            examples = torch.cat([batch.examples, turned(batch.examples, turns)])
            prediction = self.learner.network(examples, objective.stages)
        own, others = _split(prediction, labels.dim() - 1, labels.shape[-1])

        def judge(outputs: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
            both = (outputs, widened(others.logits))
            upright, turned_ = (self.label_loss(o, targets, label_smoothing) for o in both)
            return 0.5 * (upright + turned_)

        with objective.judged_by(judge):
            terms = objective(own, labels, answer)
        assert others.embeddings is not None
        told = widened(self.rotation(others.embeddings))
        loss = F.cross_entropy(told.flatten(0, -2), turns.flatten())
        right = (told.argmax(-1) == turns).to(torch.float32).mean()
        total = terms["loss"] + self._added.rotation_weight * loss
        terms |= {"loss": total, "loss/rotation": loss, "student/rotation_accuracy": right}
        return descended(terms, own.logits, labels)


def _split(prediction: Prediction, dim: int, count: int) -> tuple[Prediction, Prediction]:
    """Return the prediction of the first `count` examples along `dim`, and that of the others.

    The features `prototypes`, which are of classes, go with both.
    """

    def part(start: int, length: int) -> Prediction:
        parts = {"logits": prediction.logits, **prediction.features}
        if prediction.embeddings is not None:
            parts["embeddings"] = prediction.embeddings
        cut = {
            name: whole if name == "prototypes" else whole.narrow(dim, start, length)
            for name, whole in parts.items()
        }
        return Prediction(cut.pop("logits"), cut.pop("embeddings", None), cut)

    return part(0, count), part(count, prediction.logits.shape[dim] - count)
