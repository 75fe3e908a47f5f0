"""Whole datasets (`task=classes`): what cannot work there, and which settings have no effect."""

from __future__ import annotations

from metakd.config.schema import Config
from metakd.errors import UserError

__all__ = ["check_kept", "check_whole", "idle_in_whole"]

FEW_SHOT = (
    "ways",
    "shots",
    "queries",
    "train_ways",
    "train_shots",
    "train_queries",
    "fit",
    "meta_batch",
    "train_tasks",
    "sampling",
)
"""Settings of `task` that are about few-shot tasks."""
TASKS = ("tasks", "seed", "shots", "steps", "curve_tasks", "transductive")
"""The same of `evaluate`."""


def check_whole(config: Config) -> None:
    """Refuse what needs few-shot tasks, where there is one task of all classes.

    Raises:
        UserError: with what to type.
    """
    dataset, algorithm, distill = config.dataset, config.algorithm, config.distill
    if dataset.supports.kind != "classification":
        raise UserError(
            f"task={config.task.name} needs classes, and dataset={dataset.name} is "
            f"{dataset.supports.kind}; type task=5way_1shot, or another dataset"
        )
    if algorithm.supports.trains_on != "batches":
        raise UserError(
            f"task={config.task.name}: algorithm={algorithm.name} learns from few-shot tasks; type "
            "algorithm=supervised, which learns all classes from whole batches"
        )
    if distill.supports.uses_teacher and distill.teacher_mode != "head":
        raise UserError(
            f"distill.teacher_mode={distill.teacher_mode}: with task={config.task.name} the "
            "teacher answers with its head over the same classes; type distill.teacher_mode=head"
        )
    if dataset.options.get("all_test"):
        raise UserError(
            "dataset.options.all_test=true (--images) is for classes that are new, and with "
            f"task={config.task.name} they are the student's own: type task=5way_1shot, or put the "
            "pictures into FOLDER/test beside FOLDER/train and type dataset.folder=FOLDER"
        )
    if config.finetune.enabled:
        raise UserError(
            f"finetune={config.finetune.name}: with task={config.task.name} the student has "
            "learned all classes of the dataset already; type finetune=none"
        )


def check_kept(config: Config) -> None:
    """Refuse to train on a whole dataset of which classes are left out.

    Raises:
        UserError: with what to type.
    """
    if config.task.whole and config.evaluate.seen == "leave_out":
        raise UserError(
            f"evaluate.seen=leave_out: with task={config.task.name} the student answers with a "
            "head over all classes, and none can be left out; type evaluate.seen=refuse or "
            "evaluate.seen=keep"
        )


def idle_in_whole(config: Config) -> dict[str, str | bool]:
    """Return the settings that change nothing, and why, by name; False where they do."""
    if not config.task.whole:
        return {"task.validate_share": "it is about whole datasets (task=classes)"}
    why = "all classes are one task"
    return {
        **{f"task.{name}": why for name in FEW_SHOT},
        **{f"evaluate.{name}": why for name in TASKS},
        "algorithm.head": why,
        "algorithm.options.penalty": why,
        "meta_train.validate_tasks": why,
        "meta_train.validate_every": "validation is after each epoch (task=classes)",
        "pretrain.validate_fraction": "task.validate_share is for the teacher, too",
    }
