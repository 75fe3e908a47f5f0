"""Supervised training on the meta-train classes: the teacher's first stage, and the student's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from metakd.algorithms.supervised import Supervised
from metakd.data.class_data import ClassData
from metakd.data.tasks import ExampleBatch
from metakd.distillation.kd import KD
from metakd.distillation.objective import Answer, Objective
from metakd.models.network import Network
from metakd.models.normalization import batchnorm_mode
from metakd.reports.divergence import answers
from metakd.stages.fit import Fitted, StageContext, Validation, fit
from metakd.stages.ingredients import NOTHING, Ingredients, enriched, mixing
from metakd.stages.precision import Precision

__all__ = ["base_accuracy", "hold_out", "pretrain", "warm_start"]


def hold_out(labels: Tensor, fraction: float) -> tuple[Tensor, Tensor]:
    """Split images class by class into (training, held-out) index lists.

    Args:
        labels: [images] int64.
        fraction: share of each class that is held out, at least one image of each where it is
            above 0. The last images of a class are: a dataset's order is arbitrary.
    """
    if fraction <= 0:
        return torch.arange(len(labels), device=labels.device), labels.new_empty(0)
    train, held = [], []
    for label in range(int(labels.max()) + 1):
        members = (labels == label).nonzero().flatten()
        kept = len(members) - max(1, round(fraction * len(members)))
        train.append(members[:kept])
        held.append(members[kept:])
    return torch.cat(train).sort().values, torch.cat(held).sort().values


@torch.no_grad()
def base_accuracy(
    network: nn.Module, data: ClassData, index: Tensor, precision: Precision, split: str = "train"
) -> float:
    """Return the accuracy of `network` on the clean images `index` of classes that it learns."""
    network.eval()
    right = 0
    with batchnorm_mode(network, "running"), precision.autocast():
        for part in index.split(data.at_once):
            logits = network(data.examples(split, part, None)).logits
            right += int((answers(logits) == data.split(split).labels[part]).sum())
    return right / max(len(index), 1)


def pretrain(
    network: Network,
    data: ClassData,
    context: StageContext,
    *,
    epochs: int,
    batch_size: int,
    label_smoothing: float,
    validate_fraction: float | None,
    updates: int | None = None,
    added: Ingredients = NOTHING,
    predecessor: Network | None = None,
) -> Fitted:
    """Train `network` in place to tell the meta-train classes apart.

    The network's own validation uses held-out images of the meta-train classes, or those of the
    split `validate` where it has the same classes; the last state is kept (its learning rate has
    fallen to 0), not the best one.

    Args:
        network: backbone and a head of all meta-train classes.
        data: the dataset.
        context: how it computes, and where metrics go.
        epochs: passes over the meta-train images.
        batch_size: images of an update.
        label_smoothing: of the loss.
        validate_fraction: share of each class held out for validation; None: the images of the
            split `validate` are of the same classes.
        updates: at least so many, in further passes; None: `epochs` alone decides.
        added: to each update.
        predecessor: the teacher of the generation before, from whose answers to the same images it
            learns, too: half the loss on the labels, half τ² KL with τ = 4 (Tian et al., 2020,
            "Rethinking few-shot image classification"); None: labels alone.

    Returns:
        the loop's outcome, whose `best` is the best accuracy on held-out images.
    """
    learner = Supervised(network.backbone, data.split("train").classes)
    learner.network.head = network.head
    learner.to(data.device)
    objective = Objective()
    if predecessor is not None:
        objective = KD(ce_weight=0.5, kd_weight=0.5, temperature=4.0)
    objective.label_smoothing = label_smoothing
    train, held = hold_out(data.split("train").labels, validate_fraction or 0.0)
    held_in = "train"
    if validate_fraction is None:
        held_in, held = "validate", torch.arange(len(data.validate), device=data.device)
    batches = data.batches(
        "train",
        batch_size=batch_size,
        seed=context.seed,
        stage="pretrain",
        fresh=True,
        index=train,
    )
    validation = Validation(
        lambda: base_accuracy(network, data, held, context.precision, held_in),
        batches.batches_per_epoch,
        keep_best=False,
    )
    if validate_fraction is None:
        context = replace(context, epoch=batches.batches_per_epoch)
    return fit(
        enriched(learner, added, seed=context.seed, stage="pretrain"),
        objective,
        mixing(batches.batch, added, seed=context.seed, stage="pretrain"),
        context,
        steps=batches.steps(epochs, updates),
        answers_to=None
        if predecessor is None
        else lambda batch: _answer(predecessor, batch, context.precision),
        validation=validation if len(held) else None,
        learner_is="teacher",
    )


@torch.no_grad()
def _answer(network: Network, batch: ExampleBatch, precision: Precision) -> Answer:
    """Return a trained network's logits for the images of a batch, as they are or mixed."""
    network.eval()
    with batchnorm_mode(network, "running"), precision.autocast():
        images = batch.examples if batch.mixed is None else batch.mixed
        return Answer(network(images).logits.float(), None)


def warm_start(
    backbone: nn.Module,
    data: ClassData,
    objective: Objective,
    context: StageContext,
    *,
    answers_to: Callable[[ExampleBatch], Answer] | None,
    epochs: int,
    batch_size: int,
    label_smoothing: float,
    updates: int | None = None,
    added: Ingredients = NOTHING,
) -> Fitted:
    """Train `backbone` in place before the episodes, on labels and maybe a teacher's answers.

    The linear head over the meta-train classes that it needs is dropped afterwards.

    Args:
        backbone: the student's.
        data: the dataset.
        objective: labels alone, or a distillation.
        context: how it computes, and where metrics go.
        answers_to: the teacher's answer to a batch.
        epochs: passes over the meta-train images.
        batch_size: images of an update.
        label_smoothing: of the labels' loss.
        updates: at least so many, in further passes; None: `epochs` alone decides.
        added: to each update.
    """
    learner = Supervised(backbone, data.split("train").classes).to(data.device)
    batches = data.batches(
        "train", batch_size=batch_size, seed=context.seed, stage="warmstart", augmented=True
    )
    objective.label_smoothing = label_smoothing
    fitted = fit(
        enriched(learner, added, seed=context.seed, stage="warmstart"),
        objective,
        mixing(batches.batch, added, seed=context.seed, stage="warmstart"),
        context,
        steps=batches.steps(epochs, updates),
        answers_to=answers_to,
    )
    objective.label_smoothing = 0.0
    return fitted
