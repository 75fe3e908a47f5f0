"""The teacher and the students of a run, trained stage by stage."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from typing import Any

import torch

from metakd.adaptation.algorithm import Algorithm
from metakd.config.checks import teacher_learns
from metakd.config.schema import LEARNED_MODES, Config
from metakd.data.tasks import ExampleBatch, TaskBatch
from metakd.distillation.objective import Answer, Objective, TaskAnswers
from metakd.distillation.teacher import FrozenTeacher
from metakd.models.network import Network
from metakd.pipeline.identity import key_of_teacher
from metakd.pipeline.measure import precision_of, validation_setting
from metakd.pipeline.prepare import Prepared, optimization_of
from metakd.pipeline.teaching import join
from metakd.stages.context import StageContext, Validation
from metakd.stages.evaluate import evaluate
from metakd.stages.exchange import part_of
from metakd.stages.fit import fit
from metakd.stages.preflight import Estimate, preflight
from metakd.stages.recorder import Recorder
from metakd.stages.teacher import trained_teacher
from metakd.stages.warm_start import warm_start

__all__ = ["Student", "Taught", "get_teacher", "train_student"]

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
    """

    algorithm: Algorithm
    objective: Objective
    seconds: dict[str, float] = field(default_factory=dict)
    validated: float | None = None


@dataclass
class Taught:
    """A trained teacher.

    Attributes:
        network: backbone and head of all meta-train classes.
        frozen: answers to tasks and batches; None if it was not trained before the episodes.
        seconds: of its training; None where nothing was trained (a checkpoint, the cache).
        learned: what it has become beside the student, where it adapts or learns.
    """

    network: Network
    frozen: FrozenTeacher | None
    seconds: float | None
    learned: Network | Algorithm | None = None


def get_teacher(prepared: Prepared, recorder: Recorder) -> Taught | None:
    """Return the teacher, trained if need be; None for a run without one."""
    config, data = prepared.config, prepared.data
    if prepared.teacher is None or not data.has_classes:
        return None
    network, seconds = prepared.teacher, None
    if not prepared.teacher_is_trained and not config.pretrain.enabled:
        return Taught(network, None, None)  # it learns from scratch, beside the student
    kept = None if prepared.teacher_is_trained else recorder.finished("teacher")
    if kept is not None:  # this run's own, whatever the cache holds by now
        network.load_state_dict(kept["network"])
        network.to(data.device)
        seconds = kept["seconds"]
    elif not prepared.teacher_is_trained:

        def trained(own: Recorder) -> tuple[float, bool]:
            return trained_teacher(
                network,
                data,
                StageContext(
                    "pretrain",
                    own,
                    prepared.precision,
                    optimization_of(config.pretrain),
                    config.teacher.seed or 0,
                ),
                key=key_of_teacher(prepared, network, network.backbone),
                cache_root=prepared.cache_root if config.pretrain.cache else None,
                epochs=config.pretrain.epochs,
                updates=config.pretrain.updates,
                batch_size=config.pretrain.batch_size,
                label_smoothing=config.pretrain.label_smoothing,
                validate_fraction=config.pretrain.validate_fraction,
            )[1:]

        taken, cached = recorder.by_first(network, trained)
        seconds = None if cached else taken
        recorder.finish("teacher", {"network": network.state_dict(), "seconds": seconds})
    teacher = FrozenTeacher(
        network,
        data,
        mode=_frozen_mode(config),
        autocast=prepared.precision.dtype,
        channels_last=prepared.precision.dtype is not None and len(data.example_shape) == 3,
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
    return Taught(network, teacher, seconds)


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
        )
        seconds["warmstart"] = fitted.seconds
    torch.manual_seed(config.seed)  # for the algorithm's own head
    algorithm = prepared.algorithm(backbone)
    student = Student(algorithm, objective, seconds)
    if config.meta_train.iterations:
        if taught is not None and teacher_learns(config):
            joined = join(prepared, algorithm, taught.network, taught.frozen)
            _meta_train(prepared, recorder, None, student, joined, suffix)
            taught.learned = joined.part()
        else:
            _meta_train(prepared, recorder, teacher, student, algorithm, suffix)
    return student


def calibrates(prepared: Prepared) -> bool:
    """Tell whether logits that need a fitted scale are asked of the teacher."""
    distill = prepared.config.distill
    modes = ("prototype", "linear", "feedback")
    return (
        distill.supports.uses_teacher
        and distill.teacher_mode in modes
        and "logits" in prepared.needs
    )


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


def _meta_train(
    prepared: Prepared,
    recorder: Recorder,
    teacher: FrozenTeacher | None,
    student: Student,
    joined: Algorithm,
    suffix: str,
) -> None:
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
        stream = prepared.class_data.batches(
            "train", batch_size=stage.batch_size, seed=config.seed, stage="meta_train"
        )
        student.objective.label_smoothing = stage.label_smoothing

    needs = student.objective.reads

    def answers_to(batch: TaskBatch | ExampleBatch) -> TaskAnswers | Answer:
        assert teacher is not None
        if isinstance(batch, TaskBatch):
            return teacher.answers(batch, "train", config.distill.on, needs)
        return teacher.answer_batch(batch, needs)

    precision = precision_of(config, prepared.precision)
    regression = data.kind == "regression"
    setting = validation_setting(config, student.algorithm, stage.validate_tasks)

    def validate() -> float:
        measured = evaluate(
            student.algorithm, data, setting, precision=precision, group=recorder.group
        )[0]
        if measured.diverged.all() or (regression and measured.diverged.any()):
            return math.nan  # there is no figure by which it could be chosen
        return float(measured.values.mean())

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
    fitted = fit(
        joined,
        student.objective,
        stream.batch,
        StageContext(
            "meta_train" + suffix, recorder, precision, optimization_of(stage), config.seed
        ),
        steps=stage.iterations,
        answers_to=None if teacher is None else answers_to,
        validation=Validation(validate, stage.validate_every, not regression),
    )
    student.objective.label_smoothing = 0.0
    student.seconds["meta_train"] = fitted.seconds
    student.validated = fitted.best
