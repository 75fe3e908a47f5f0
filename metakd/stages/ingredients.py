"""What a stage may add to an update beside labels and teacher: quarter turns, mixed examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from metakd.adaptation.algorithm import Algorithm, descended
from metakd.adaptation.embedding_learner import EmbeddingLearner
from metakd.algorithms.supervised import Supervised
from metakd.data.counter_random import stream_key
from metakd.data.mixing import mixed_batch, partners_of, share_of
from metakd.data.quarter_turns import TURNS, quarter_turns, turned
from metakd.data.tasks import Batch, ExampleBatch, TaskBatch
from metakd.distillation.divergences import widened
from metakd.distillation.objective import Answer, Answers, Objective, TaskAnswers
from metakd.models.manifold_mixup import Mixture, mixable_stages, mixed_inside
from metakd.models.network import Prediction

__all__ = ["NOTHING", "Enriched", "Ingredients", "enriched", "mixing"]


@dataclass(frozen=True)
class Ingredients:
    """What a stage adds to its updates.

    Attributes:
        rotation_weight: of the cross-entropy of telling by which quarter turn a picture was
            turned; 0: there is no such head.
        mixup: α of mixup; 0: examples are not mixed.
        manifold_mixup: α of manifold mixup; 0: features are not mixed.
    """

    rotation_weight: float = 0.0
    mixup: float = 0.0
    manifold_mixup: float = 0.0


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


def mixing(
    batch_at: Callable[[int], ExampleBatch], added: Ingredients, *, seed: int, stage: str
) -> Callable[[int], ExampleBatch]:
    """Return what gives a step's batch with the mixtures of `added.mixup`, if it asks for any.

    Args:
        batch_at: gives the batch of a step.
        added: what the stage adds.
        seed: names the stream of random choices, together with
        stage: that trains on them.
    """
    if not added.mixup:
        return batch_at

    def mixed_at(step: int) -> ExampleBatch:
        key = stream_key(seed, stage, "mixup", step)
        return mixed_batch(batch_at(step), added.mixup, key)

    return mixed_at


class Enriched(EmbeddingLearner):
    """A learner that embeds, in training on more than the batch's examples as they are.

    Rotation (Gidaris et al. 2018, 2019): each update sees the batch's pictures (of tasks: the
    query sets) once more in the same forward pass, each turned by 0, 90, 180 or 270 degrees as
    the update's key decides. The loss on the labels is the mean over both kinds of pictures; added
    is `rotation_weight` times the cross-entropy of the turn, over the turned ones, which a linear
    head tells. The head is trained and saved with the learner, and is no part of it.

    Mixtures of a batch (`mixing`) take the place of its examples; those are turned as they are.
    The loss on the labels is share · L(own) + (1 - share) · L(partner's).

    Manifold mixup (Verma et al. 2019): the same with the features of a stage of the network, which
    is drawn in each update from its input and its named stages.

    A teacher's terms are of pictures that it has seen, too: as they are, or mixed at the input.
    With manifold mixup the student sees the examples as they are, too, for these terms alone.

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
        self._places: list[str] | None = None
        self.rotation: nn.Linear | None = None
        if not added.rotation_weight:
            return
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
        """See `Algorithm.begin`: the step decides turns and mixtures."""
        self._step = step
        self.learner.begin(step, steps)

    def rate_factors(self) -> Mapping[int, float]:
        """See `Algorithm.rate_factors`."""
        return self.learner.rate_factors()

    def own_optimizers(self) -> Mapping[str, Optimizer]:
        """See `Algorithm.own_optimizers`."""
        return self.learner.own_optimizers()

    def advance(self) -> dict[str, Tensor]:
        """See `Algorithm.advance`."""
        return self.learner.advance()

    def concerns(self) -> list[str]:
        """See `Algorithm.concerns`."""
        return self.learner.concerns()

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
        if isinstance(batch, TaskBatch):
            assert not isinstance(answers, Answer)
            return self._on_tasks(batch, objective, answers)
        assert not isinstance(answers, TaskAnswers)
        return self._on_examples(batch, objective, answers)

    def _on_tasks(
        self, batch: TaskBatch, objective: Objective, answers: TaskAnswers | None
    ) -> dict[str, Tensor]:
        assert batch.query_index is not None
        turns = quarter_turns(self._key("rotation"), batch.query_index)
        prediction = self.learner(
            batch.support,
            batch.support_targets,
            torch.cat([batch.query, turned(batch.query, turns)], dim=1),
            batch.ways,
            objective.stages,
            objective.compares_supports,
        )
        count = batch.query.shape[1]
        own, others = _part(prediction, 1, 0, count), _part(prediction, 1, count, count)

        def judge(outputs: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
            parts = (outputs, widened(others.logits))
            upright, quarter = (self.label_loss(o, targets, label_smoothing) for o in parts)
            return 0.5 * (upright + quarter)

        with objective.judged_by(judge):
            terms = objective(own, batch.query_targets, None if answers is None else answers.query)
        terms = self._with_rotation(terms, others, turns)
        return descended(terms, own.logits, batch.query_targets)

    def _on_examples(
        self, batch: ExampleBatch, objective: Objective, answer: Answer | None
    ) -> dict[str, Tensor]:
        assert isinstance(self.learner, Supervised)
        count, labels, partners, share = len(batch), batch.labels, batch.partners, batch.share
        pieces = [batch.examples if batch.mixed is None else batch.mixed]
        inside, learned_from = nullcontext(), 0  # the first row that the labels are learned from
        if self._added.manifold_mixup:
            key = self._key("manifold_mixup")
            order, share = partners_of(batch, key), share_of(self._added.manifold_mixup, key)
            partners = labels[order]
            if answer is not None:
                learned_from = count
                pieces.append(batch.examples)
            place = self._place(key, tuple(batch.examples.shape[1:]))
            if place is None:
                pieces[-1] = Mixture(0, order, share)(batch.examples)
            else:
                mixture = Mixture(learned_from, order, share)
                inside = mixed_inside(self.backbone, place, mixture)  # type: ignore[assignment]
        turns = None
        if self.rotation is not None:
            turns = quarter_turns(self._key("rotation"), batch.index)
            pieces.append(turned(batch.examples, turns))
        with inside:
            prediction = self.learner.network(torch.cat(pieces), objective.stages)
        own = _part(prediction, 0, 0, count)
        last = _part(prediction, 0, len(prediction.logits) - count, count)

        def judge(outputs: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
            if learned_from:
                outputs = widened(prediction.logits[learned_from : learned_from + count])
            loss = self.label_loss(outputs, targets, label_smoothing)
            if partners is not None and share is not None:
                others = self.label_loss(outputs, partners, label_smoothing)
                loss = share * loss + (1.0 - share) * others
            if turns is None:
                return loss
            return 0.5 * (loss + self.label_loss(widened(last.logits), targets, label_smoothing))

        with objective.judged_by(judge):
            terms = objective(own, labels, answer)
        if turns is not None:
            terms = self._with_rotation(terms, last, turns)
        return descended(terms, own.logits, labels)

    def _with_rotation(
        self, terms: dict[str, Tensor], seen: Prediction, turns: Tensor
    ) -> dict[str, Tensor]:
        """Return the terms with that of the rotation added."""
        assert seen.embeddings is not None and self.rotation is not None
        told = widened(self.rotation(seen.embeddings))
        loss = F.cross_entropy(told.flatten(0, -2), turns.flatten())
        right = (told.argmax(-1) == turns).to(torch.float32).mean()
        total = terms["loss"] + self._added.rotation_weight * loss
        return terms | {"loss": total, "loss/rotation": loss, "student/rotation_accuracy": right}

    def _place(self, key: int, example_shape: tuple[int, ...]) -> str | None:
        """Return the stage whose features this update mixes; None: the input."""
        if self._places is None:
            self._places = mixable_stages(self.backbone, example_shape)
        number = stream_key(key, "place") % (1 + len(self._places))
        return None if not number else self._places[number - 1]

    def _key(self, name: str) -> int:
        return stream_key(self._seed, self._stage, name, self._step)


def _part(prediction: Prediction, dim: int, start: int, count: int) -> Prediction:
    """Return the prediction of `count` examples along `dim`, from `start`.

    The features `prototypes`, which are of classes, are those of the whole.
    """
    parts = {"logits": prediction.logits, **prediction.features}
    if prediction.embeddings is not None:
        parts["embeddings"] = prediction.embeddings
    cut = {
        name: whole if name == "prototypes" else whole.narrow(dim, start, count)
        for name, whole in parts.items()
    }
    return Prediction(cut.pop("logits"), cut.pop("embeddings", None), cut)
