"""Teachers that adapt or learn: what the student's learner is joined with for meta-training."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from metakd.adaptation.algorithm import Algorithm
from metakd.algorithms.maml import MAML
from metakd.config.compose import choice_alone
from metakd.config.schema import AlgorithmConfig, Config
from metakd.data.class_data import ClassData
from metakd.data.tasks import ExampleBatch, TaskBatch
from metakd.distillation.teacher import FrozenTeacher
from metakd.models.network import Network
from metakd.pipeline.construction import settings_of
from metakd.pipeline.prepared import Prepared
from metakd.registry import build
from metakd.teaching.co_learning import Exchange
from metakd.teaching.co_meta import CoLearner
from metakd.teaching.feedback import FeedbackLearner
from metakd.teaching.teaching_algorithm import Joined, TeachingAlgorithm

__all__ = ["adapting_teacher", "adapting_teacher_config", "exchange_of", "join"]


def exchange_of(config: Config) -> Exchange:
    """Return what flows between teacher and student (method.md section 4)."""
    distill = config.distill
    exchange = Exchange(teacher_ce=distill.teacher_ce_weight, teacher_kd=0.0)
    if not distill.supports.uses_teacher:
        return replace(exchange, to_student=False)
    if distill.teacher_mode == "per_task":
        return exchange
    return Exchange(
        to_student=distill.direction != "to_teacher",
        teacher_ce=distill.teacher_ce_weight,
        teacher_kd=0.0 if distill.direction == "to_student" else distill.teacher_kd_weight,
        mutual=distill.mutual,
    )


def adapting_teacher_config(config: Config) -> AlgorithmConfig:
    """Return the settings of the learner around a teacher that adapts to tasks.

    With an algorithm that teaches they are those of the student's learner.
    """
    algorithm, distill = config.algorithm, config.distill
    rate = distill.teacher_inner_lr or algorithm.inner_lr
    steps = distill.teacher_inner_steps or algorithm.inner_steps
    given = algorithm.inner_steps_test
    test_steps = steps if distill.teacher_inner_steps or not algorithm.supports.adapts else given
    if algorithm.supports.teaches:
        return replace(algorithm, inner_lr=rate, inner_steps=steps, inner_steps_test=test_steps)
    return replace(
        choice_alone("algorithm", "maml"),
        inner_lr=rate,
        inner_steps=steps,
        inner_steps_test=test_steps,
        first_order=distill.teacher_first_order,
        batchnorm=algorithm.batchnorm,
    )


def adapting_teacher(
    prepared: Prepared, backbone: nn.Module, head: nn.Linear | None = None
) -> Algorithm:
    """Return a learner around the teacher's backbone that adapts to tasks by gradient steps.

    With an algorithm that teaches it is the same learner as the student's.

    Args:
        prepared: the run.
        backbone: the teacher's, which the learner then works on.
        head: likewise, on regression, where all tasks have the same outputs; None: a new one.
    """
    config = prepared.config
    settings = adapting_teacher_config(config)
    torch.manual_seed(config.teacher.seed or 0)  # for its head
    if config.algorithm.supports.teaches:
        own = prepared.algorithm(backbone, settings)
        assert isinstance(own, TeachingAlgorithm)
        return own.student
    data = prepared.data
    outputs = config.task.training().ways if data.has_classes else data.outputs
    learner: MAML = build(MAML, backbone, outputs, settings=settings_of(settings))
    if head is not None and not data.has_classes:
        learner.network.head = head
    return learner.to(prepared.device)


def join(
    prepared: Prepared, student: Algorithm, network: Network, frozen: FrozenTeacher | None
) -> Joined:
    """Return what is meta-trained: the student's learner together with its teacher's.

    Args:
        prepared: the run.
        student: the student's learner.
        network: the teacher's start, which is left as it is.
        frozen: its answers as they are at the start; None if it was not trained.
    """
    config = prepared.config
    distill = config.distill
    if distill.teacher_mode == "feedback":
        assert frozen is not None
        learner = FeedbackLearner(
            student,
            copy.deepcopy(network),
            frozen.mean,
            scale=frozen.scale,
            quiz=_quiz(prepared, prepared.class_data),
            teacher_lr=distill.teacher_lr,
            trial_lr=distill.trial_lr,
            hypergradient=distill.hypergradient,
        )
        return learner.to(prepared.device)
    own = copy.deepcopy(network)
    teacher = adapting_teacher(prepared, own.backbone, own.head)
    if isinstance(student, TeachingAlgorithm):
        student.join(teacher, exchange_of(config), teacher_lr=distill.teacher_lr, seed=config.seed)
        return student
    return CoLearner(
        student,
        teacher,
        exchange=exchange_of(config),
        learns=distill.teacher_mode == "co_meta" or distill.teacher_learns,
        teacher_lr=distill.teacher_lr,
    )


def _quiz(prepared: Prepared, data: ClassData) -> Callable[[int], TaskBatch | ExampleBatch]:
    """Return the quiz of a step: of the meta-train classes, other draws than those trained on."""
    config = prepared.config
    task, stage = config.task, config.meta_train
    if config.algorithm.supports.trains_on == "batches":
        return data.batches(
            "train", batch_size=stage.batch_size, seed=config.seed, stage="quiz"
        ).batch
    return data.tasks(
        "train",
        task.training(),
        tasks=task.meta_batch,
        seed=config.seed,
        stage="quiz",
        augmented=True,
    ).batch
