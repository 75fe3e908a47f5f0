"""Whether evaluation can centre embeddings and average versions of a support image."""

from __future__ import annotations

from metakd.config.locate import Choices, supports_of
from metakd.config.schema import Config
from metakd.errors import UserError

__all__ = ["check_judging", "idle_in_evaluation"]

ADAPTING = ("per_task", "co_meta")
"""Teacher modes of a teacher that is evaluated as it adapts by gradient steps."""


TRAINING = ("meta_batch", "sampling", "train_queries", "train_shots", "train_tasks")
"""Settings of `task` that evaluation does not read."""


def idle_in_evaluation(config: Config, typed: frozenset[str]) -> list[str]:
    """Return a line for each typed setting of tasks and data that only training reads.

    Args:
        config: with which a trained run is evaluated.
        typed: what was typed to evaluate it.
    """
    kinds = config.evaluate.augmented_shots > 1 and not config.evaluate.augment
    idle = {f"task.{name}" for name in TRAINING} | {"dataset.views"}
    idle |= set() if kinds else {"dataset.augment"}
    # A head of fixed size has as many outputs as a training task has classes.
    adapts = config.distill.teacher_mode in ADAPTING or config.algorithm.supports.teaches
    if not (config.algorithm.supports.fixed_ways or adapts):
        idle.add("task.train_ways")
    return [
        f"{key} changes nothing: a trained run is only evaluated" for key in sorted(idle & typed)
    ]


def check_judging(config: Config) -> None:
    """Refuse settings of `evaluate` that cannot act on the student or the teacher.

    Student, twin and teacher are judged alike, so that their figures can be compared.

    Raises:
        UserError: one line with what to type instead.
    """
    evaluate, algorithm, distill = config.evaluate, config.algorithm, config.distill
    asked = {"centre": evaluate.centre, "augmented_shots": evaluate.augmented_shots > 1}
    for name, on in asked.items():
        if not on:
            continue
        typed = f"evaluate.{name}={str(getattr(evaluate, name)).lower()}"
        off = "evaluate.centre=false" if name == "centre" else "evaluate.augmented_shots=1"
        if config.task.whole:
            raise UserError(
                f"{typed}: task={config.task.name} has no support sets whose embeddings "
                f"would judge queries; type {off}"
            )
        if name not in algorithm.supports.evaluates_with:
            able = ", ".join(_able(name))
            raise UserError(
                f"{typed}: algorithm={algorithm.name} has no embeddings on which it could act as "
                f"they are compared; it acts on {able}; type {off}"
            )
        if distill.supports.uses_teacher and distill.teacher_mode in ADAPTING:
            raise UserError(
                f"{typed}: with distill.teacher_mode={distill.teacher_mode} the teacher adapts by "
                f"gradient steps, and student and teacher are judged alike; type {off}, or "
                "distill.teacher_mode=auto"
            )
    if asked["augmented_shots"] and not (evaluate.augment or config.dataset.augment):
        raise UserError(
            f"evaluate.augmented_shots={evaluate.augmented_shots}: nothing changes the images "
            "(dataset.augment=[]); type evaluate.augment=[crop,flip] or evaluate.augmented_shots=1"
        )


def _able(name: str) -> list[str]:
    """Return the algorithms on whose embeddings a setting acts."""
    group = "algorithm"
    return [
        choice
        for choice in Choices().of(group)
        if name in supports_of(group, choice).get("evaluates_with", [])
    ]
