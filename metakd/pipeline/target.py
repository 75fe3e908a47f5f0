"""Fine-tuning of a run's student on its target task."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection

import torch
from torch import Tensor

from metakd.data.class_data import ClassData
from metakd.data.on_disk import taken
from metakd.data.target import TargetTask
from metakd.distillation.calibration import fit_scale
from metakd.distillation.divergences import unit
from metakd.distillation.objective import Answer, stages_among
from metakd.distillation.teacher import FrozenTeacher
from metakd.distillation.teacher_modes import class_means, prototype_logits_on_support
from metakd.pipeline.construction import optimization_of
from metakd.pipeline.learners import Student
from metakd.pipeline.prepared import Prepared
from metakd.stages.evaluate import embeds_alone
from metakd.stages.fine_tune import TargetResult, Transfer, fine_tune
from metakd.stages.fit import StageContext
from metakd.stages.recorder import Recorder

__all__ = ["fine_tune_student"]


def fine_tune_student(
    prepared: Prepared,
    recorder: Recorder,
    student: Student,
    teacher: FrozenTeacher | None,
    suffix: str = "",
) -> TargetResult:
    """Fine-tune a copy of the student's backbone on the config's target task and evaluate it.

    With `finetune.distill` the run's distillation goes on: the teacher embeds the target's
    training images, and its logits come from the prototypes of the target's training classes.
    """
    config, data, everything = prepared.config, prepared.class_data, prepared.everything
    assert everything.has_classes
    target = everything.target(
        config.finetune.target, config.finetune.shots, config.dataset.split_seed
    )
    distillation = None
    if config.finetune.distill and teacher is not None:
        objective = copy.deepcopy(student.objective)
        distillation = objective, _answers(teacher, data, target, objective.reads)
    return fine_tune(
        student.algorithm.backbone,
        data,
        target,
        StageContext(
            "finetune" + suffix,
            recorder,
            prepared.precision,
            optimization_of(config.finetune),
            config.seed,
        ),
        epochs=config.finetune.epochs,
        batch_size=config.finetune.batch_size,
        how=Transfer(
            freeze_backbone=config.finetune.freeze_backbone,
            l2sp=config.finetune.l2sp,
            unfreeze_every=config.finetune.unfreeze_every,
            depth_decay=config.finetune.depth_decay,
        ),
        # The meta-learner's body was trained without running statistics, or its file had none.
        recalibrate=config.algorithm.supports.adapts
        or not embeds_alone(student.algorithm.backbone),
        distillation=distillation,
    )


def _answers(
    teacher: FrozenTeacher, data: ClassData, target: TargetTask, needs: Collection[str]
) -> Callable[[Tensor], Answer]:
    """Return the teacher's answers by position in the target's training images.

    Prototypes leave the image itself out, so a class of one image has no logits: None then.
    """
    embeddings = torch.cat(
        [
            teacher.embed(data.as_seen(images))
            for images in target.train.examples.split(data.at_once)
        ]
    )
    known = unit(embeddings - teacher.mean)
    labels, classes = target.train.labels, target.train.classes
    stages = stages_among(needs)
    known_of_classes: dict[str, Tensor] = {}
    if "prototypes" in needs:
        known_of_classes["prototypes"] = class_means(embeddings[None], labels[None], classes)[0]

    def features(index: Tensor) -> dict[str, Tensor]:
        if not stages:
            return known_of_classes
        images = data.as_seen(taken(target.train.examples, index))
        return known_of_classes | teacher.features(images, stages)

    if int(torch.bincount(labels).min()) < 2:
        return lambda index: Answer(None, embeddings[index], features(index))
    logits = prototype_logits_on_support(known[None], labels[None], classes, 1.0)[0]
    # A scale of its own: the episodes' one belongs to other ways, shots and, maybe, mode.
    logits = fit_scale(logits, labels) * logits
    return lambda index: Answer(logits[index], embeddings[index], features(index))
