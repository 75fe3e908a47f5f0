"""What the weights of a teacher and of an undistilled student depend on, as plain values.

Settings count as they are after resolution: one that is typed with the value that it would have
had, or that its class does not use, changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from metakd.class_source import source_fingerprint
from metakd.config.schema import ArchitectureConfig, OptimizerConfig
from metakd.data.cache import content_checksum
from metakd.pipeline.construction import settings_of
from metakd.pipeline.measure import precision_of, steps_at_test
from metakd.pipeline.meta_pretrain import teacher_updates
from metakd.pipeline.prepared import Prepared
from metakd.pipeline.teacher_view import reads_larger
from metakd.pipeline.teaching import adapting_teacher_config
from metakd.registry import defaults_of, resolve
from metakd.stages.kept import content_address, fingerprint
from metakd.stages.teacher import teacher_key

__all__ = ["key_of_student_alone", "key_of_teacher"]

SHAPES = frozenset({"width", "widths", "depth"})
"""Settings of our own architectures that decide which weights there are, and nothing else."""

CODE = fingerprint(
    "models",
    "data",
    "distillation",
    "adaptation",
    "adversarial",
    "teaching",
    "algorithms",
    "distributed",
    "stages",
    "pipeline",
)
"""Of the sources that decide what a student is, read when the program starts."""


def key_of_teacher(
    prepared: Prepared,
    network: nn.Module,
    backbone: nn.Module,
    seed: int | None = None,
    taught_by: str | None = None,
) -> str:
    """Return the content address of the teacher that pre-training makes of an untrained one.

    Args:
        prepared: the run.
        network: the whole teacher.
        backbone: of it.
        seed: of its training; None: `teacher.seed`.
        taught_by: content address of the teacher of the generation before; None: it is the first.
    """
    config, data, expects = prepared.config, prepared.data, prepared.teacher_input
    return teacher_key(
        architecture={
            **_network(backbone, config.teacher, network),
            "expects": None if expects is None else expects.plain(),
            **({"reads_larger": True} if data.has_classes and reads_larger(prepared) else {}),
        },
        training={
            **_stage(config.pretrain, "cache", "generations"),
            **({} if taught_by is None else {"taught_by": taught_by}),
            **_images(prepared),
            **({} if data.has_classes else _episodes(prepared)),
            "deterministic": config.deterministic,
        },
        data_checksum=data.checksum,
        precision=prepared.precision.name,
        device_type=prepared.device.type,
        threads=torch.get_num_threads(),
        seed=config.teacher.seed or 0 if seed is None else seed,
    )


def key_of_student_alone(prepared: Prepared, processes: int) -> str:
    """Return the content address of the student that this run trains on labels alone.

    Nothing of teacher and distillation is in it, so that it is the same for runs that differ in
    these.

    Args:
        prepared: the run.
        processes: that train it together.
    """
    config = prepared.config
    algorithm, task, warmstart = config.algorithm, config.task, config.warmstart
    learner = resolve(algorithm._target_, "metakd.algorithms", config.plugins)
    drawn = task.training()
    content = {
        "student": _network(prepared.student, config.student, prepared.student),
        "algorithm": {
            **_used(learner, settings_of(algorithm), algorithm.options),
            "class": algorithm._target_,
            "source": source_fingerprint(learner),
            "trains_on": algorithm.supports.trains_on,
            "adapts": algorithm.supports.adapts,
            "first_order": algorithm.first_order,
            "steps_at_test": steps_at_test(config),
        },
        "validation": "whole"
        if task.whole
        else [task.ways, task.shots, task.queries, config.evaluate.seed],
        "tasks": [
            drawn.ways,
            drawn.shots,
            drawn.queries,
            task.meta_batch,
            task.train_tasks,
            task.sampling,
        ],
        "warmstart": _stage(warmstart, "unlabelled", "unlabelled_updates", "unlabelled_anyway")
        if warmstart.enabled and (warmstart.epochs or warmstart.contrast_updates)
        else None,
        "meta_train": _stage(config.meta_train),
        "data": prepared.data.checksum,
        **_images(prepared),
        "views": config.dataset.views,
        "seed": config.seed,
        "precision": [prepared.precision.name, precision_of(config, prepared.precision).name],
        "deterministic": config.deterministic,
        "processes": processes,
        "code": CODE,
    }
    return content_address(content, prepared.device.type, torch.get_num_threads())


def _episodes(prepared: Prepared) -> dict[str, Any]:
    """Return what meta-training of a teacher depends on beside its stage: learner and tasks."""
    config = prepared.config
    return {
        "learner": settings_of(adapting_teacher_config(config)),
        "updates": teacher_updates(config),
        "tasks": [vars(config.task.training()), config.task.meta_batch],
        "validation": [vars(config.task.evaluation()), config.evaluate.seed],
        "validated": [config.meta_train.validate_every, config.meta_train.validate_tasks],
        "code": CODE,
    }


def _network(backbone: nn.Module, config: ArchitectureConfig, whole: nn.Module) -> dict[str, Any]:
    """Return what a network is before it is trained: class, settings, and every weight."""
    cls = type(backbone)
    settings = _used(cls, settings_of(config), config.options)
    if cls.__module__.startswith("metakd."):
        settings = {name: value for name, value in settings.items() if name not in SHAPES}
    return {
        **settings,
        "class": config._target_,
        "source": source_fingerprint(cls),
        "start": content_checksum(whole.state_dict(), {}),
    }


def _used(cls: type, settings: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a constructor takes, each with the value that it has in the end."""
    defaults = defaults_of(cls)
    given = {**settings, **options}
    return {name: given.get(name, default) for name, default in sorted(defaults.items())}


def _stage(section: OptimizerConfig, *irrelevant: str) -> dict[str, Any]:
    """Return a stage's settings without those that change nothing."""
    found = settings_of(section)
    for name in ("name", "enabled", *irrelevant):
        found.pop(name, None)
    if section.schedule != "step":
        found.pop("halve_every", None)
    if section.schedule != "milestones":
        found.pop("milestones", None)
        found.pop("milestone_factor", None)
    return found


def _images(prepared: Prepared) -> dict[str, Any]:
    """Return what becomes of the images on their way into a network; of regression nothing."""
    if not prepared.data.has_classes:
        return {}
    data = prepared.class_data
    return {
        "augment": list(prepared.config.dataset.augment),
        # The target's test images are left out of the data, not of its checksum.
        "left_out": data is not prepared.everything,
        "given": data.preprocessing.plain(),
    }
