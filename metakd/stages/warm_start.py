"""The student on whole batches of the meta-train classes, before the episodes begin."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from metakd.algorithms.supervised import Supervised
from metakd.data.class_data import ClassData
from metakd.data.tasks import ExampleBatch
from metakd.distillation.objective import Answer, Objective
from metakd.stages.context import StageContext
from metakd.stages.fit import Fitted, fit

__all__ = ["warm_start"]


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
) -> Fitted:
    """Train `backbone` in place with labels and, if `answers_to` is given, a teacher's answers.

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
    """
    learner = Supervised(backbone, data.split("train").classes).to(data.device)
    batches = data.batches(
        "train", batch_size=batch_size, seed=context.seed, stage="warmstart", augmented=True
    )
    objective.label_smoothing = label_smoothing
    fitted = fit(
        learner,
        objective,
        batches.batch,
        context,
        steps=batches.steps(epochs, updates),
        answers_to=answers_to,
    )
    objective.label_smoothing = 0.0
    return fitted
