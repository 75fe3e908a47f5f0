"""Born-again students: each generation learns from the one before (Furlanello et al., 2018)."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from metakd.adaptation.algorithm import Algorithm, MetricAlgorithm
from metakd.config.needs import asks_base_head
from metakd.data.counter_random import stream_key
from metakd.errors import UserError
from metakd.models.network import Network
from metakd.pipeline.construction import build_backbone
from metakd.pipeline.learners import Student, Taught, frozen_teacher, train_student
from metakd.pipeline.measure import Evaluated
from metakd.pipeline.prepared import Prepared
from metakd.stages.evaluate import embeds_alone
from metakd.stages.recorder import Recorder

__all__ = ["as_teacher", "check_generations", "figures_of", "named", "train_generations"]


def check_generations(prepared: Prepared, algorithm: Algorithm) -> None:
    """Refuse students that cannot teach the next generation.

    Args:
        prepared: the run.
        algorithm: its learner.

    Raises:
        UserError: an image has no embedding of its own, the loss asks for outputs that the student
            does not have, or for features that it does not have.
    """
    config = prepared.config
    if config.distill.generations < 2 or not config.distill.supports.uses_teacher:
        return
    typed = f"distill.generations={config.distill.generations}"
    if not (isinstance(algorithm, MetricAlgorithm) and embeds_alone(algorithm.backbone)):
        raise UserError(
            f"{typed}: what this student says of an image depends on other images, and a teacher's "
            "embeddings may not; type distill.generations=1"
        )
    if algorithm.whole_network() is None and asks_base_head(config, prepared.needs):
        raise UserError(
            f"{typed}: distill={config.distill.name} asks the teacher for the meta-train classes, "
            f"and a student of algorithm={config.algorithm.name} has no outputs for them; type "
            "warmstart=none, distill=embedding, or algorithm=supervised"
        )
    network = as_teacher(prepared, algorithm)
    prepared.objective(network, torch.zeros(network.head.in_features))  # its stages are there


def train_generations(
    prepared: Prepared, recorder: Recorder, taught: Taught | None
) -> tuple[list[Student], Taught | None]:
    """Train the student, `distill.generations` times; return them all, and the last one's teacher.

    The first learns from the run's teacher, each further one from the student before it. That is
    the same architecture from new initial weights; images, tasks and their order are the same.

    Args:
        prepared: the run.
        recorder: where metrics and checkpoints go.
        taught: the run's teacher; None: without one there is one generation.
    """
    config = prepared.config
    students = [train_student(prepared, recorder, taught)]
    if not config.distill.supports.uses_teacher:
        return students, taught
    for generation in range(2, config.distill.generations + 1):
        # The student before it is given what the student is given: it has no view of its own.
        own = replace(prepared, student=_born_again(prepared, generation), teacher_input=None)
        network = as_teacher(own, students[-1].algorithm)
        taught = Taught(network, frozen_teacher(own, network, recorder), None)
        students.append(train_student(own, recorder, taught, f"_generation{generation}"))
    return students, taught


def named(students: Sequence[Student]) -> dict[str, Student]:
    """Return the generations before the last one, which is the run's student, by their names."""
    return {f"generation_{i}": student for i, student in enumerate(students[:-1], 1)}


def figures_of(
    earlier: Mapping[str, Student], evaluated: Mapping[str, Evaluated], student: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the figures of each generation for results.json, the student's last.

    Args:
        earlier: generations, by name.
        evaluated: figures, by name.
        student: results of the last one, whose cost is that of all.
    """
    found = []
    for name, model in earlier.items():
        entry = {**evaluated[name].figures(), "cost": student["cost"]}
        if model.validated is not None:
            entry["validated"] = model.validated
        found.append(entry)
    return [*found, dict(student)]


def _born_again(prepared: Prepared, generation: int) -> torch.nn.Module:
    """Return the student's backbone with new initial weights."""
    config = prepared.config
    seed = config.seed if config.student.seed is None else config.student.seed
    fresh = build_backbone(
        config.student,
        prepared.data.example_shape,
        config.plugins,
        stream_key(seed, "student generation", generation),
    )
    student = copy.deepcopy(prepared.student)
    student.load_state_dict(fresh.state_dict())
    return student


def as_teacher(prepared: Prepared, algorithm: Algorithm) -> Network:
    """Return a trained student as a teacher: with its head, or one that is not asked."""
    whole = algorithm.whole_network()
    if whole is not None:
        return copy.deepcopy(whole)
    classes = prepared.class_data.split("train").classes
    return Network(copy.deepcopy(algorithm.backbone), classes).to(prepared.device)
