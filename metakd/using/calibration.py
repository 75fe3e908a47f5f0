"""Calibration of a model's confidence: temperature and threshold from meta-validation tasks."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from metakd.adaptation.algorithm import Algorithm, MetricAlgorithm
from metakd.data.class_data import ClassData
from metakd.data.tasks import TaskBatch
from metakd.distillation.calibration import fit_scale
from metakd.runs.records_using import Calibration, Score
from metakd.stages.evaluate import (
    EvaluationSetting,
    embed_split,
    embeds_alone,
    evaluation_tasks,
    images_of,
)
from metakd.stages.precision import Precision
from metakd.task_spec import TaskSpec
from metakd.using.known import SCORES, auroc, quantiles_of, rejection_curve

__all__ = ["RATES", "Evaluated", "calibrate", "evaluated_tasks"]

RATES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
"""False-alarm rates for which the rejection curve is kept."""


class Evaluated(NamedTuple):
    """Answers to tasks whose queries are partly of classes that were not shown.

    Attributes:
        known: logits [n, ways] of queries of the task's classes.
        targets: [n] int64, their classes.
        unknown: logits [m, ways] of queries of other classes.
    """

    known: Tensor
    targets: Tensor
    unknown: Tensor


def evaluated_tasks(
    algorithm: Algorithm,
    data: ClassData,
    *,
    split: str,
    ways: int,
    shots: int,
    queries: int,
    tasks: int,
    seed: int,
    steps: int | None,
    precision: Precision,
    embeddings: Tensor | None = None,
) -> Evaluated:
    """Return a learner's logits for queries of a task's classes and of other classes.

    Args:
        algorithm: the learner; batch norm inductive.
        data: the dataset.
        split: whose classes; those beyond `ways`, up to as many again, are not shown.
        ways: classes of a task.
        shots: support examples of a class.
        queries: query examples of a class, shown or not.
        tasks: number of tasks; those with answers that are not finite are left out.
        seed: decides the tasks.
        steps: of adaptation.
        precision: number format of forward passes.
        embeddings: [examples, size] of `split`, where known already.
    """
    spec = TaskSpec(min(2 * ways, data.split(split).classes), shots, queries)
    gather = isinstance(algorithm, MetricAlgorithm) and embeds_alone(algorithm.backbone)
    if gather and embeddings is None:
        setting = EvaluationSetting(split, spec, tasks, seed, "calibrate")
        used = images_of(data, [setting])
        embeddings = embed_split(algorithm, data, split, precision, used=used)  # type: ignore[arg-type]
    algorithm.eval()
    logits, targets = [], []
    for batch in evaluation_tasks(
        data,
        split,
        spec,
        tasks=tasks,
        seed=seed,
        stage="calibrate",
    ):
        task = _shown(batch, ways)
        if embeddings is not None:
            assert isinstance(algorithm, MetricAlgorithm)
            assert task.support_index is not None and task.query_index is not None
            with torch.no_grad():
                found = algorithm.classify(
                    embeddings[task.support_index],
                    task.support_targets,
                    embeddings[task.query_index],
                    ways,
                )
        else:
            with precision.autocast():
                found = algorithm.predict(task, (steps or 0,), "inductive")[0]
        # A head may have more outputs than the task has classes.
        logits.append(found[..., :ways].detach().float().cpu())
        targets.append(task.query_targets.cpu())
    every, labels = torch.cat(logits), torch.cat(targets)
    sound = every.isfinite().flatten(1).all(1)
    every, labels = every[sound].flatten(0, 1), labels[sound].flatten()
    return Evaluated(every[labels < ways], labels[labels < ways], every[labels >= ways])


def _shown(batch: TaskBatch, ways: int) -> TaskBatch:
    """Return the tasks with the support of the first `ways` classes, and all queries."""
    kept = ways * batch.shots
    index = batch.support_index
    return replace(
        batch,
        support=batch.support[:, :kept],
        support_targets=batch.support_targets[:, :kept],
        support_index=None if index is None else index[:, :kept],
        support_view=None,
        query_view=None,
        classes=None,
        ways=ways,
    )


def calibrate(
    evaluated: Evaluated, *, split: str, tasks: int, ways: int, shots: int
) -> Calibration:
    """Fit the scale by smoothed likelihood, and choose the score that finds most unknown queries.

    The targets are smoothed as in J. Platt, "Probabilistic Outputs for Support Vector Machines"
    (1999), section 2.2: n correct answers out of n allow a confidence of (n + 1) / (n + 2). Without
    smoothing, the scale would be unbounded there.

    Args:
        evaluated: answers to tasks of `split`.
        split: whose classes they were made of.
        tasks: number of tasks.
        ways: classes of a task.
        shots: support examples of a class.

    Raises:
        ValueError: there is no answer.
    """
    scale = fit_scale(
        evaluated.known, evaluated.targets, smoothing=1 / (len(evaluated.targets) + 2)
    )
    known, unknown = scale * evaluated.known.double(), scale * evaluated.unknown.double()
    found: dict[str, float] = {}
    if len(unknown):
        found = {name: auroc(score(known), score(unknown)) for name, score in SCORES.items()}
    chosen: Score = max(SCORES, key=lambda name: found[name]) if found else "probability"
    score = SCORES[chosen]
    quantiles = quantiles_of(score(known))
    curve = rejection_curve(score(known), score(unknown), quantiles, RATES) if len(unknown) else []
    return Calibration(
        scale=scale,
        split=split,
        tasks=tasks,
        ways=ways,
        shots=shots,
        score=chosen,
        quantiles=tuple(quantiles),
        auroc=found,
        curve=tuple(curve),
    )
