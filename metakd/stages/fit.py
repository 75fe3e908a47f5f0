"""The one training loop: every stage that descends a loss step by step is a call of `fit`."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from metakd.algorithms.algorithm import Algorithm
from metakd.data.tasks import ExampleBatch, TaskBatch
from metakd.distillation.objective import Answer, Objective, TaskAnswers
from metakd.stages.optimization import Optimization, make_optimizer
from metakd.stages.precision import Precision
from metakd.stages.recorder import Recorder, floats

__all__ = ["Fitted", "fit"]


@dataclass(frozen=True)
class Fitted:
    """What a training loop leaves beside the trained learner.

    Attributes:
        seconds: wall-clock time of the loop, validations included.
        best: the best validation value, or None if nothing was validated.
        best_step: the step after which it was reached.
    """

    seconds: float
    best: float | None = None
    best_step: int | None = None


def fit(
    learner: Algorithm,
    objective: Objective,
    batch_at: Callable[[int], TaskBatch | ExampleBatch],
    *,
    steps: int,
    optimization: Optimization,
    precision: Precision,
    recorder: Recorder,
    stage: str,
    answers_to: Callable[[Any], TaskAnswers | Answer | None] | None = None,
    validate: Callable[[], float] | None = None,
    validate_every: int = 0,
    higher_is_better: bool = True,
    keep_best: bool = True,
    learner_is: str = "student",
    log_every: int = 10,
) -> Fitted:
    """Descend the learner's outer loss for `steps` updates, keeping the best on validation.

    Args:
        learner: what is trained, in place; at the end it holds its best validated state (with
            `keep_best`), else its last.
        objective: the loss; its own parameters are trained along.
        batch_at: the batch of a step, a pure function of the step.
        steps: number of updates; 0 leaves the learner as it is.
        optimization: optimiser and schedule.
        precision: number format of the forward passes.
        recorder: where metrics and checkpoints go.
        stage: name under which they go.
        answers_to: the teacher's answer to a batch; None without teacher.
        validate: returns the validation value of the learner as it is now.
        validate_every: steps between validations; 0: only at the end.
        higher_is_better: false for errors (regression).
        learner_is: `student` or `teacher`: under which name its training accuracy is logged.
        keep_best: go back to the best validated state at the end.
        log_every: steps between lines of metrics.

    Raises:
        FloatingPointError: the outer loss is not finite; the update was not made.
    """
    began = time.perf_counter()
    others = learner.own_optimizers()
    apart = {id(p) for o in others.values() for g in o.param_groups for p in g["params"]}
    optimizer = make_optimizer([learner, objective], optimization, apart)
    peaks = {name: [g["lr"] for g in o.param_groups] for name, o in others.items()}
    best: float | None = None
    best_step: int | None = None
    best_state: tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]] | None = None

    def state(step: int) -> dict[str, Any]:
        return {
            "stage": stage,
            "step": step,
            "learner": learner.state_dict(),
            "objective": objective.state_dict(),
            "optimizer": optimizer.state_dict(),
            "own_optimizers": {name: o.state_dict() for name, o in others.items()},
            "best": best,
            "best_step": best_step,
        }

    done = 0
    try:
        with recorder.bar(stage, steps) as bar:
            for step in range(steps):
                learner.train()
                rate = optimization.rate(step, steps)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                share = rate / optimization.lr if optimization.lr else 1.0
                for name, own in others.items():
                    for group, peak in zip(own.param_groups, peaks[name], strict=True):
                        group["lr"] = peak * share
                    own.zero_grad(set_to_none=True)
                batch = batch_at(step)
                answers = None if answers_to is None else answers_to(batch)
                optimizer.zero_grad(set_to_none=True)
                learner.begin(step, steps)
                with precision.autocast():
                    terms = learner.accumulate(batch, objective, answers)
                last = step + 1 == steps
                logged: dict[str, float] = {}
                if last or step % log_every == 0:
                    logged = _named(terms, learner_is) | _teacher_accuracy(batch, answers)
                if not torch.isfinite(terms["loss"]):
                    raise FloatingPointError(
                        f"the loss of {stage} is {float(terms['loss'])} at step {step}; lower "
                        f"{stage.removesuffix('_alone')}.lr or algorithm.inner_lr"
                    )
                if optimization.clip is not None:
                    everything = (optimizer, *others.values())
                    torch.nn.utils.clip_grad_value_(
                        [p for o in everything for g in o.param_groups for p in g["params"]],
                        optimization.clip,
                    )
                optimizer.step()
                further = learner.advance()
                if logged:
                    logged |= floats(further)
                done = step + 1
                if validate is not None and (
                    last or (validate_every and done % validate_every == 0)
                ):
                    value = validate()
                    logged |= _named(terms, learner_is) | _teacher_accuracy(batch, answers)
                    logged |= floats(further)
                    logged["validate/accuracy" if higher_is_better else "validate/mse"] = value
                    better = math.isfinite(value) and (
                        best is None or (value > best if higher_is_better else value < best)
                    )
                    if better:
                        best, best_step = value, done
                        if keep_best:
                            best_state = copy.deepcopy(
                                (learner.state_dict(), objective.state_dict())
                            )
                            # The undistilled twin must not take the student's place.
                            twin = stage.endswith("_alone")
                            recorder.checkpoint("best_alone" if twin else "best", state(done))
                    recorder.checkpoint("last", state(done))
                if logged:
                    recorder.log(stage, step, logged | {"lr": rate})
                # Beside the bar there is room for the total, not for its terms.
                shown = {n: v for n, v in logged.items() if "/" not in n or "accuracy" in n}
                bar.advance(1, shown)
    except KeyboardInterrupt:
        recorder.checkpoint("last", state(done))
        raise
    for line in learner.concerns():
        recorder.warn(line)
    if best_state is not None:
        learner.load_state_dict(best_state[0])
        objective.load_state_dict(best_state[1])
    return Fitted(time.perf_counter() - began, best, best_step)


def _named(terms: Mapping[str, torch.Tensor], learner_is: str) -> dict[str, float]:
    """Return the learner's terms as floats, its accuracy under its own name."""
    return {n.replace("student/", f"{learner_is}/"): v for n, v in floats(terms).items()}


def _teacher_accuracy(
    batch: TaskBatch | ExampleBatch, answers: TaskAnswers | Answer | None
) -> dict[str, float]:
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
