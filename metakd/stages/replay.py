"""Looking again at an update that was not finite: which task, after which inner step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from metakd.adaptation.gradient_learner import GradientLearner
from metakd.data.tasks import Batch, TaskBatch
from metakd.distillation.objective import Answers, target_loss
from metakd.runs.journal import Journal
from metakd.stages.precision import Precision
from metakd.stages.recorder import Recorder
from metakd.stages.training import Training
from metakd.tracking.progress import Progress

__all__ = ["Replay", "Replayed", "Report", "TaskReport"]


@dataclass(frozen=True)
class TaskReport:
    """What one task does to the update.

    Attributes:
        number: its place in the batch.
        classes: the classes of its split; empty for regression.
        loss: the outer loss of this task alone.
        problem: what is not finite, or None.
        query_losses: loss on the query set after 0, 1, 2 … inner steps (learners that adapt).
    """

    number: int
    classes: list[int]
    loss: float
    problem: str | None
    query_losses: list[float]


@dataclass(frozen=True)
class Report:
    """What was found.

    Attributes:
        stage: of the update.
        step: its number.
        reason: what was not finite when the run made it.
        problem: what is not finite now, None if all is (another device, a chance event).
        same_tasks: the batch is the one that the run had.
        parameters: those that are not finite before the update.
        tasks: the tasks one by one; empty for whole batches.
    """

    stage: str
    step: int
    reason: str
    problem: str | None
    same_tasks: bool
    parameters: list[str]
    tasks: list[TaskReport] = field(default_factory=list)


class Replayed(Exception):  # noqa: N818 (not an error: the end of what was to be done)
    """The update was looked at; nothing more is to be trained."""

    def __init__(self, report: Report) -> None:
        super().__init__("replayed")
        self.report = report


class Replay(Recorder):
    """Takes the stages that were done from the run, looks at the failed update, writes nothing.

    Args:
        journal: the run's, opened.
        failure: what the run kept of the update (`nonfinite.pt`).
        progress: progress bars; None: quiet ones.
    """

    def __init__(
        self, journal: Journal, failure: Mapping[str, Any], progress: Progress | None = None
    ) -> None:
        super().__init__(progress=progress)
        self._run, self._failure = journal, failure

    def finished(self, stage: str) -> dict[str, Any] | None:
        """Return what the run kept of `stage`."""
        return self._run.finished(stage)

    def last(self, stage: str) -> dict[str, Any] | None:
        """Return the state before the failed update for its stage."""
        return dict(self._failure) if stage == self._failure["stage"] else None

    def about_to_train(
        self,
        training: Training,
        batch_at: Callable[[int], Batch],
        answers_to: Callable[[Any], Answers] | None,
        steps: int,
        precision: Precision,
    ) -> None:
        """Look at the failed update if this is its stage.

        Raises:
            Replayed: it was; with the report.
        """
        if training.stage != self._failure["stage"]:
            return
        batch = batch_at(training.step)
        before = training.kept()

        def look(part: Batch) -> tuple[dict[str, Tensor], str | None]:
            answers = None if answers_to is None else answers_to(part)
            try:
                return training.gradients(part, answers, steps, precision)
            finally:
                before.restore()

        _, problem = look(batch)
        tasks = []
        if isinstance(batch, TaskBatch):
            for number in range(len(batch)):
                part = _only(batch, number)
                terms, own = look(part)
                classes = [] if part.classes is None else part.classes[0].tolist()
                losses = _query_losses(training, part)
                tasks.append(TaskReport(number, classes, float(terms["loss"]), own, losses))
        raise Replayed(
            Report(
                stage=training.stage,
                step=training.step,
                reason=str(self._failure["reason"]),
                problem=problem,
                same_tasks=_same(batch, self._failure["batch"]),
                parameters=[
                    name
                    for name, p in training.learner.named_parameters()
                    if not bool(torch.isfinite(p).all())
                ],
                tasks=tasks,
            )
        )


def _only(batch: TaskBatch, number: int) -> TaskBatch:
    """Return a task of the batch alone."""
    values: dict[str, Any] = {f.name: getattr(batch, f.name) for f in fields(batch)}
    for name, value in values.items():
        if isinstance(value, Tensor):
            values[name] = value[number : number + 1]
    return TaskBatch(**values)


def _query_losses(training: Training, task: TaskBatch) -> list[float]:
    learner = training.learner
    if not isinstance(learner, GradientLearner):
        return []
    outputs = learner.predict(task, range(learner.test_steps + 1))
    return [float(target_loss(o, task.query_targets)) for o in outputs]


def _same(batch: Batch, kept: Mapping[str, Any]) -> bool:
    for name, value in vars(batch).items():
        other = kept.get(name)
        if isinstance(value, Tensor):
            if not isinstance(other, Tensor) or not torch.equal(value.cpu(), other.cpu()):
                return False
        elif value != other:
            return False
    return True
