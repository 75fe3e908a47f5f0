"""The teacher and the students of a run, trained stage by stage."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from metakd.adaptation.algorithm import Algorithm
from metakd.config.checks import teacher_learns
from metakd.config.needs import asks_scale
from metakd.config.schema import LEARNED_MODES, Config
from metakd.data.tasks import ExampleBatch, TaskBatch
from metakd.distillation.distillation import Distillation
from metakd.distillation.objective import Answer, Objective, TaskAnswers
from metakd.distillation.teacher import FrozenTeacher
from metakd.models.network import Network
from metakd.pipeline.construction import optimization_of
from metakd.pipeline.groups import apart, whole_batches
from metakd.pipeline.ingredients import ingredients_of
from metakd.pipeline.kept_embeddings import kept_embeddings
from metakd.pipeline.learned import found_values, weighing
from metakd.pipeline.measure import chosen_by, precision_of, validation_setting
from metakd.pipeline.prepared import Prepared
from metakd.pipeline.teacher_training import join_members, train_teacher
from metakd.pipeline.teacher_view import (
    small_pictures,
    view_of_teacher,
)
from metakd.pipeline.teaching import adapting_teacher, join
from metakd.pipeline.whole import part_of_state, updates_of_epoch, validated, whole_network
from metakd.stages.contrast import contrast
from metakd.stages.exchange import part_of
from metakd.stages.fit import StageContext, fit
from metakd.stages.ingredients import enriched, mixing
from metakd.stages.kept_embeddings import KeptEmbeddings
from metakd.stages.learned_weights import LearnsWeights
from metakd.stages.preflight import Estimate, preflight
from metakd.stages.pretrain import warm_start
from metakd.stages.recorder import Recorder
from metakd.stages.teacher_view import CachedTeacherView
from metakd.stages.unlabelled import follow

__all__ = ["Student", "Taught", "frozen_teacher", "get_teacher", "meta_train", "train_student"]

CALIBRATION_STEPS = 10

LONG = 500
"""Meta-iterations from which on memory and time are estimated before they begin."""


@dataclass
class Student:
    """A trained student.

    Attributes:
        algorithm: the learner around its backbone.
        objective: what it minimised (with the learned projection, if there is one).
        seconds: by stage.
        validated: best value on meta-validation, None if not validated.
        best: the algorithm's state then, where it is in its last one (whole datasets).
    """

    algorithm: Algorithm
    objective: Objective
    seconds: dict[str, float] = field(default_factory=dict)
    validated: float | None = None
    best: dict[str, Tensor] | None = None


@dataclass
class Taught:
    """A trained teacher.

    Attributes:
        network: backbone and head of all meta-train classes, or of a regression's outputs.
        frozen: answers to tasks and batches; None if it was not trained before the episodes, or
            there are no classes.
        seconds: of its training; None where nothing was trained (a checkpoint, the cache).
        learned: what it has become beside the student, where it adapts or learns; on regression
            what it is before, too.
        has_own_view: whether it has its own view of the examples, and its embeddings are kept.
    """

    network: Network
    frozen: FrozenTeacher | None
    seconds: float | None
    learned: Network | Algorithm | None = None
    has_own_view: bool = False

    @property
    def own(self) -> FrozenTeacher | None:
        """What embeds with its own view of the examples; None: the network as it is given them."""
        return self.frozen if self.has_own_view and self.learned is None else None


def get_teacher(prepared: Prepared, recorder: Recorder) -> Taught | None:
    """Return the teacher, trained if need be; None for a run without one."""
    config, data = prepared.config, prepared.data
    if prepared.teacher is None:
        return None
    network, seconds = prepared.teacher, None
    line = small_pictures(prepared) if data.has_classes else None
    if line is not None:
        recorder.say(line)
    untrained = not prepared.teacher_is_trained and not config.pretrain.enabled
    if untrained and data.has_classes:
        return Taught(network, None, None)  # it learns from scratch, beside the student
    if not prepared.teacher_is_trained and not untrained:
        seconds = train_teacher(prepared, network, recorder)
    if prepared.teacher_members:
        join_members(prepared, network, prepared.teacher_members)
    if not data.has_classes:
        whole = copy.deepcopy(network)
        own = adapting_teacher(prepared, whole.backbone, whole.head)
        return Taught(network, None, seconds, own)
    teacher_view = view_of_teacher(prepared, network, recorder)
    kept = [] if teacher_view else kept_embeddings(prepared, network, recorder)
    teacher = frozen_teacher(prepared, network, recorder, teacher_view, kept)
    return Taught(network, teacher, seconds, has_own_view=teacher_view is not None)


def frozen_teacher(
    prepared: Prepared,
    network: Network,
    recorder: Recorder,
    teacher_view: CachedTeacherView | None = None,
    kept: Sequence[KeptEmbeddings] = (),
) -> FrozenTeacher:
    """Return the answers of a network that no longer changes, calibrated where they need it."""
    config, data = prepared.config, prepared.class_data
    teacher = FrozenTeacher(
        network,
        data,
        mode=_frozen_mode(config),
        autocast=prepared.precision.dtype,
        channels_last=prepared.precision.dtype is not None and len(data.example_shape) == 3,
        teacher_view=teacher_view,
        kept=kept,
        folder=prepared.cache_root / "embeddings",
        open_bar=recorder.progress.bar,
        by_support=config.distill.ensemble == "support_accuracy",
    )
    if calibrates(prepared):
        teacher.calibrate(
            data.tasks(
                "validate",
                config.task.calibration(),
                tasks=20,
                seed=config.evaluate.seed,
                stage="calibrate",
            ),
            CALIBRATION_STEPS,
        )
    return teacher


def _frozen_mode(config: Config) -> str:
    """Return how the teacher answers as long as it stays as it is."""
    mode = config.distill.teacher_mode
    return "prototype" if mode in LEARNED_MODES else mode


def train_student(
    prepared: Prepared, recorder: Recorder, taught: Taught | None, suffix: str = ""
) -> Student:
    """Warm-start and meta-train a copy of the student, with a teacher or on labels alone.

    A teacher that adapts or learns is trained beside it; `taught.learned` is what it becomes.

    Initial weights, images, tasks and numbers of updates do not depend on the teacher, so that a
    student with and one without are twins.
    """
    config, data = prepared.config, prepared.data
    backbone = copy.deepcopy(prepared.student)
    helped = taught is not None and config.distill.supports.uses_teacher
    objective = _objective(prepared, taught if helped else None)
    teacher = taught.frozen if taught is not None and helped else None
    seconds: dict[str, float] = {}
    if data.has_classes and config.warmstart.enabled:
        network = None if taught is None or teacher is None else taught.network
        _start_unlabelled(prepared, recorder, network, backbone, objective, suffix, seconds)
    if data.has_classes and config.warmstart.enabled and config.warmstart.epochs:
        torch.manual_seed(config.seed)  # for the base-class head
        fitted = warm_start(
            backbone,
            data,
            objective,
            StageContext(
                "warmstart" + suffix,
                recorder,
                prepared.precision,
                optimization_of(config.warmstart),
                config.seed,
            ),
            answers_to=None
            if teacher is None
            else lambda batch: teacher.answer_batch(batch, objective.reads),
            epochs=config.warmstart.epochs,
            updates=config.warmstart.updates,
            batch_size=config.warmstart.batch_size,
            label_smoothing=config.warmstart.label_smoothing,
            added=ingredients_of(config.warmstart),
        )
        seconds["warmstart"] = seconds.get("warmstart", 0.0) + fitted.seconds
    torch.manual_seed(config.seed)  # for the algorithm's own head
    algorithm = prepared.algorithm(backbone)
    student = Student(algorithm, objective, seconds)
    if config.meta_train.iterations:
        if taught is not None and teacher_learns(config):
            joined = join(prepared, algorithm, taught.network, taught.frozen)
            meta_train(prepared, recorder, None, student, joined, "meta_train" + suffix)
            taught.learned = joined.part()
        else:
            meta_train(prepared, recorder, teacher, student, algorithm, "meta_train" + suffix)
    return student


def _start_unlabelled(
    prepared: Prepared,
    recorder: Recorder,
    network: Network | None,
    backbone: nn.Module,
    objective: Objective,
    suffix: str,
    seconds: dict[str, float],
) -> None:
    """Train the student's backbone in place on what needs no labels, and note the seconds.

    Args:
        prepared: the run.
        recorder: where metrics and checkpoints go.
        network: the teacher; None: the student is on its own.
        backbone: the student's.
        objective: the student's.
        suffix: of the stages' names.
        seconds: by stage; here `warmstart`.
    """
    stage, data, seed = prepared.config.warmstart, prepared.unlabelled, prepared.config.seed

    def context(name: str) -> StageContext:
        torch.manual_seed(seed)
        how = optimization_of(stage)
        return StageContext(name + suffix, recorder, prepared.precision, how, seed)

    sizes = {"batch_size": stage.batch_size}
    if stage.contrast_updates:
        updates = stage.contrast_updates
        own = contrast(backbone, prepared.class_data, context("contrast"), updates=updates, **sizes)
        seconds["warmstart"] = own.seconds
    if network is None or data is None:
        return
    others = replace(prepared, data=data, everything=data, read_again=prepared.unlabelled_again)
    teacher = FrozenTeacher(
        network,
        data,
        autocast=prepared.precision.dtype,
        teacher_view=view_of_teacher(others, network, recorder),
    )
    fitted = follow(
        backbone,
        data,
        objective,
        context("unlabelled"),
        answers_to=lambda batch: teacher.answer_batch(batch, objective.reads),
        updates=stage.unlabelled_updates,
        **sizes,
    )
    seconds["warmstart"] = seconds.get("warmstart", 0.0) + fitted.seconds


def calibrates(prepared: Prepared) -> bool:
    """Tell whether logits that need a fitted scale are asked of the teacher."""
    return asks_scale(prepared.config, prepared.needs)


def _objective(prepared: Prepared, taught: Taught | None) -> Objective:
    if taught is None:
        return Objective().to(prepared.device)
    network = taught.network
    mean = torch.zeros(network.head.in_features, device=prepared.device)
    return prepared.objective(network, mean if taught.frozen is None else taught.frozen.mean)


def _say(estimate: Estimate | None, recorder: Recorder) -> None:
    """Print the estimated memory and time of meta-training, and what to do if it cannot fit."""
    if estimate is None:
        return
    recorder.estimate = estimate.line()
    recorder.say(recorder.estimate)
    warning = estimate.warning()
    if warning is not None:
        recorder.warn(warning)


def meta_train(
    prepared: Prepared,
    recorder: Recorder,
    teacher: FrozenTeacher | None,
    student: Student,
    joined: Algorithm,
    name: str,
) -> None:
    """Train a student on the meta-train classes, as `meta_train` of the config says.

    Args:
        prepared: the run.
        recorder: where metrics and checkpoints go.
        teacher: answers to episodes and batches; None: labels alone.
        student: trained in place; its seconds and best validation are noted.
        joined: its algorithm, maybe with a teacher that learns beside it.
        name: of the stage, under which metrics and checkpoints go.
    """
    config, data = prepared.config, prepared.data
    task, stage = config.task, config.meta_train
    episodes = config.algorithm.supports.trains_on == "episodes"
    stream: Any
    if episodes:
        stream = data.tasks(
            "train",
            task.training(),
            tasks=task.meta_batch,
            seed=config.seed,
            stage="meta_train",
            augmented=True,
        )
    else:
        stream = whole_batches(prepared)
    if not config.algorithm.supports.adapts:  # what it adapts to would be smoothed, too
        student.objective.label_smoothing = stage.label_smoothing
    added = ingredients_of(stage)
    joined = apart(prepared, joined)
    joined = enriched(joined, added, seed=config.seed, stage="meta_train")
    if teacher is not None:
        joined = weighing(config, joined, student.objective)
    needs = student.objective.reads

    def answers_to(batch: TaskBatch | ExampleBatch) -> TaskAnswers | Answer:
        assert teacher is not None
        if isinstance(batch, TaskBatch):
            return teacher.answers(batch, "train", config.distill.on, needs)
        return teacher.answer_batch(batch, needs)

    precision = precision_of(config, prepared.precision)
    if stage.iterations >= LONG and episodes:
        first, _ = part_of(stream.batch(0), recorder.group.rank, recorder.group.size)
        answers = None if teacher is None else answers_to(first)
        estimate = preflight(
            joined,
            first,
            student.objective,
            stage.iterations,
            answers if isinstance(answers, TaskAnswers) else None,
            autocast=precision.autocast,
        )
        _say(estimate, recorder)
    context = StageContext(name, recorder, precision, optimization_of(stage), config.seed)
    if config.task.whole:
        network = whole_network(student.algorithm, config)
        context = replace(context, epoch=updates_of_epoch(config, prepared.class_data))
        validation = validated(network, prepared.class_data, context.epoch, precision)
    else:
        setting = validation_setting(config, student.algorithm, stage.validate_tasks)
        validation = chosen_by(
            student.algorithm, data, setting, stage.validate_every, precision, recorder
        )
    fitted = fit(
        joined,
        student.objective,
        mixing(stream.batch, added, seed=config.seed, stage="meta_train"),
        context,
        steps=stage.iterations,
        answers_to=None if teacher is None else answers_to,
        validation=validation,
    )
    if isinstance(joined, LearnsWeights):
        recorder.say(found_values(joined))
        # Of the kept state, also where it was trained by an earlier process.
        assert isinstance(student.objective, Distillation)
        joined.settle(student.objective)
    student.objective.label_smoothing = 0.0
    student.seconds[name.split("_generation")[0].removesuffix("_alone")] = fitted.seconds
    student.validated = fitted.best
    if fitted.best_learner is not None:
        student.best = part_of_state(joined, fitted.best_learner, student.algorithm)
