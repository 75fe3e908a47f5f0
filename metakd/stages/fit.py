"""The one training loop: every stage that descends a loss step by step is a call of `fit`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from metakd.adaptation.algorithm import Algorithm
from metakd.data.tasks import Batch, ExampleBatch, TaskBatch
from metakd.distillation.objective import Answer, Answers, Objective, TaskAnswers
from metakd.errors import UserError
from metakd.stages.optimization import Optimization
from metakd.stages.precision import Precision
from metakd.stages.recorder import Recorder, floats
from metakd.stages.training import NotFiniteError, Training

__all__ = ["Fitted", "StageContext", "Validation", "fit"]


@dataclass(frozen=True)
class StageContext:
    """Surroundings of a training stage.

    Attributes:
        stage: name under which metrics and checkpoints go.
        recorder: where they go, and what was done before comes from.
        precision: number format of forward passes.
        optimization: optimiser and schedule.
        seed: decides order and augmentation, by name of the stream.
        epoch: updates of an epoch, after each of which a line says how far it is; 0: none does.
    """

    stage: str
    recorder: Recorder
    precision: Precision
    optimization: Optimization = field(default_factory=Optimization)
    seed: int = 0
    epoch: int = 0


@dataclass(frozen=True)
class Validation:
    """How a stage chooses among the states that it passes through.

    Attributes:
        measure: returns the validation value of the learner as it is now.
        every: steps between validations; 0: only at the end.
        higher_is_better: false for errors (regression).
        keep_best: remember the best validated state.
        goes_back: at the end the learner holds that state; otherwise its last one, and the best
            is returned.
    """

    measure: Callable[[], float]
    every: int = 0
    higher_is_better: bool = True
    keep_best: bool = True
    goes_back: bool = True


@dataclass(frozen=True)
class Fitted:
    """What a training loop leaves beside the trained learner.

    Attributes:
        seconds: wall-clock time of the loop, validations included.
        best: the best validation value, or None if nothing was validated.
        best_step: the step after which it was reached.
        best_learner: the learner's state then, where it did not go back to it.
    """

    seconds: float
    best: float | None = None
    best_step: int | None = None
    best_learner: dict[str, Any] | None = None


def fit(
    learner: Algorithm,
    objective: Objective,
    batch_at: Callable[[int], Batch],
    context: StageContext,
    *,
    steps: int,
    answers_to: Callable[[Any], Answers] | None = None,
    validation: Validation | None = None,
    learner_is: str = "student",
    log_every: int = 10,
) -> Fitted:
    """Descend the learner's outer loss for `steps` updates, keeping the best on validation.

    What an earlier process did of this stage, as the recorder knows, is not done again: the rest
    of the updates is made from the state that it left, to the same end.

    Args:
        learner: what is trained, in place; at the end it holds its best validated state (if that
            is kept), else its last; with `optimization.ema` these are averages over updates.
        objective: the loss; its own parameters are trained along.
        batch_at: the batch of a step, a pure function of the step.
        context: how it computes, and where metrics and checkpoints go.
        steps: number of updates; 0 leaves the learner as it is.
        answers_to: the teacher's answer to a batch; None without teacher.
        validation: how the learner is validated; None: it is not.
        learner_is: `student` or `teacher`: under which name its training accuracy is logged.
        log_every: steps between lines of metrics.

    Raises:
        UserError: what was kept of this stage belongs to other networks or optimisers.
        NotFiniteError: a loss or a gradient is not finite, more often than `optimization` lets
            pass; the update was not made.
    """
    stage, recorder = context.stage, context.recorder
    optimization, precision = context.optimization, context.precision
    finished = recorder.finished(stage)
    if finished is not None:
        with _fitting(stage):
            learner.load_state_dict(finished["learner"])
            objective.load_state_dict(finished["objective"])
        known = [finished[name] for name in ("seconds", "best", "best_step")]
        return Fitted(known[0], known[1], known[2], finished.get("best_learner"))
    training = Training(learner, objective, optimization, stage, recorder.group)
    found = recorder.last(stage)
    if found is not None:
        with _fitting(stage):
            training.load(found)
    recorder.about_to_train(training, batch_at, answers_to, steps, precision)
    began = time.perf_counter() - training.seconds

    def state() -> dict[str, Any]:
        training.seconds = time.perf_counter() - began
        return training.state()

    def validates(step: int) -> bool:
        if validation is None:
            return False
        return step == steps or bool(validation.every and step % validation.every == 0)

    def ends_epoch(step: int) -> bool:
        return bool(context.epoch) and step % context.epoch == 0

    def save() -> None:
        # The undistilled twin must not take the student's place.
        best = training.new_best() if not stage.endswith("_alone") else None
        recorder.checkpoint(state(), best)

    torn = False  # an update is half made
    try:
        with recorder.bar(stage, steps, start=training.step) as bar:
            while training.step < steps or training.pending is not None:
                if training.pending is None:
                    # These change nothing, so they can be broken off: the first answers of a large
                    # teacher may take an hour.
                    step = training.step
                    batch = batch_at(step)
                    mine = training.share(batch)
                    answers = None if answers_to is None else answers_to(mine)
                    with recorder.whole():
                        left = optimization.skip_nonfinite - training.skipped
                        before = training.kept() if left > 0 else None
                        terms: Mapping[str, torch.Tensor] = {}
                        further: Mapping[str, torch.Tensor] = {}
                        torn = True
                        try:
                            terms, further = training.update(mine, answers, steps, precision)
                        except FloatingPointError as problem:
                            recorder.keep_failure(
                                {**state(), "reason": str(problem), "batch": dict(vars(batch))}
                            )
                            if before is None:
                                raise NotFiniteError(stage, step, str(problem)) from problem
                            before.restore()
                            training.skipped += 1
                            recorder.warn(f"{stage}: step {step} was skipped: {problem}")
                        training.pending = {}
                        ends = step + 1 == steps or ends_epoch(step + 1)
                        if step % log_every == 0 or ends or validates(step + 1):
                            training.pending = _named(terms, learner_is) | floats(further)
                            training.pending |= training.mean(_teacher_accuracy(mine, answers))
                            training.pending["lr"] = optimization.rate(step, steps)
                            if training.skipped:
                                training.pending["skipped"] = training.skipped
                        training.step, torn = step + 1, False
                logged = training.pending
                value = None
                if validation is not None and validates(training.step):
                    with training.judged():
                        value = validation.measure()  # can be broken off: it is done again
                with recorder.whole():
                    torn = True
                    if validation is not None and value is not None:
                        higher = validation.higher_is_better
                        logged["validate/accuracy" if higher else "validate/mse"] = value
                        training.validated(value, higher, validation.keep_best)
                    if logged:
                        recorder.log(stage, training.step - 1, logged)
                    training.pending, torn = None, False
                    if recorder.due(training.step) and training.step < steps:
                        save()
                if ends_epoch(training.step):
                    recorder.say(_epoch_line(context, training.step, steps, logged))
                # Beside the bar there is room for the total, not for its terms.
                bar.advance(1, {n: v for n, v in logged.items() if "/" not in n or "accuracy" in n})
    except KeyboardInterrupt:
        if not torn:
            save()
        raise
    for line in learner.concerns():
        recorder.warn(line)
    with recorder.whole():
        save()
        best = None
        if validation is not None and not validation.goes_back:
            best = training.best_learner()
        training.take_best(goes_back=best is None)
        kept = ("learner", "objective", "seconds", "best", "best_step")
        ended = {k: v for k, v in state().items() if k in kept}
        recorder.finish(stage, ended if best is None else {**ended, "best_learner": best})
    return Fitted(training.seconds, training.best, training.best_step, best)


@contextmanager
def _fitting(stage: str) -> Iterator[None]:
    """Say it in a line if what was kept of a stage is not for these networks and optimisers.

    Raises:
        UserError: it is not.
    """
    try:
        yield
    except (RuntimeError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"what the run kept of stage {stage} does not fit the changed configuration "
            f"({reason[:200]}); change less, or start a new run"
        ) from error


def _named(terms: Mapping[str, torch.Tensor], learner_is: str) -> dict[str, float]:
    """Return the learner's terms as floats, its accuracy under its own name."""
    return {n.replace("student/", f"{learner_is}/"): v for n, v in floats(terms).items()}


def _epoch_line(context: StageContext, step: int, steps: int, metrics: Mapping[str, float]) -> str:
    """Return e.g. ``meta_train epoch 12 of 240: loss 1.31, validate/accuracy 61.2 %, lr 0.05``."""
    shown = [name for name in metrics if name in ("loss", "lr") or name.endswith("accuracy")]
    words = [
        f"{name} {100 * metrics[name]:.1f} %"
        if "accuracy" in name
        else f"{name} {metrics[name]:.3g}"
        for name in shown
    ]
    epoch = context.epoch
    return f"{context.stage} epoch {step // epoch} of {steps // epoch}: {', '.join(words)}"


def _teacher_accuracy(batch: Batch, answers: Answers) -> dict[str, float]:
    """Return how often the teacher's logits are right on what it was asked, if it gave any."""
    if isinstance(answers, TaskAnswers) and isinstance(batch, TaskBatch):
        on_query = answers.query is not None
        answer = answers.query if on_query else answers.support
        targets = batch.query_targets if on_query else batch.support_targets
    elif isinstance(answers, Answer) and isinstance(batch, ExampleBatch):
        answer, targets = answers, batch.labels
    else:
        return {}
    if answer is None or answer.logits is None or targets.is_floating_point():
        return {}
    return {"teacher/accuracy": float((answer.logits.argmax(-1) == targets).float().mean())}
