"""The training loop: what it descends, what it keeps, when it stops."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from metakd.adaptation.algorithm import Algorithm
from metakd.distillation.objective import Objective
from metakd.runs.interrupts import Interrupted, interrupts
from metakd.stages.fit import Fitted, StageContext, Validation, fit
from metakd.stages.optimization import Optimization
from metakd.stages.precision import Precision
from metakd.stages.recorder import Recorder
from metakd.stages.training import NotFiniteError

STEEP = Optimization(optimizer="plain_sgd", lr=0.5)


class Parabola(Algorithm):
    """One parameter w with the loss (w - batch)² / 2."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1))

    def accumulate(self, batch: Any, objective: Any, answers: Any) -> dict[str, Tensor]:
        loss = (self.w - batch).pow(2).sum() / 2
        loss.backward()
        return {"loss": loss.detach()}

    def predict(
        self, tasks: Any, steps: Sequence[int] = (0,), batchnorm: str = "inductive"
    ) -> Tensor:
        return self.w.detach()


class Memory(Recorder):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str, int, dict[str, float]]] = []
        self.saved: list[dict[str, Any]] = []

    def log(self, stage: str, step: int, metrics: Any) -> None:
        self.lines.append((stage, step, dict(metrics)))

    def checkpoint(self, state: Any, best: Any = None) -> None:
        self.saved.append(dict(state))


def run(learner: Parabola, recorder: Memory | None = None, **changes: Any) -> Fitted:
    settings: dict[str, Any] = {
        "steps": 4,
        "optimization": Optimization(optimizer="plain_sgd", lr=0.5),
        "stage": "meta_train",
        "validate": None,
        "validate_every": 0,
        **changes,
    }
    context = StageContext(
        settings.pop("stage"),
        recorder or Memory(),
        Precision(None, "cpu"),
        settings.pop("optimization"),
    )
    measure, every = settings.pop("validate"), settings.pop("validate_every")
    chosen = {n: settings.pop(n) for n in ("higher_is_better", "keep_best") if n in settings}
    if measure is not None:
        settings["validation"] = Validation(measure, every, **chosen)
    return fit(learner, Objective(), lambda step: torch.ones(1), context, **settings)


def test_descends_by_hand_worked_steps() -> None:
    learner = Parabola()
    run(learner)
    assert learner.w.item() == pytest.approx(1 - 0.5**4)


def test_schedule_is_followed() -> None:
    learner, recorder = Parabola(), Memory()
    how = Optimization(optimizer="plain_sgd", lr=0.5, schedule="linear")
    run(learner, recorder, optimization=how, log_every=1)
    assert [line[2]["lr"] for line in recorder.lines] == [0.5, 0.375, 0.25, 0.125]


def test_clip_bounds_each_entry() -> None:
    learner = Parabola()
    run(learner, steps=1, optimization=Optimization(optimizer="plain_sgd", lr=1.0, clip=0.1))
    assert learner.w.item() == pytest.approx(0.1)


def test_no_steps_change_nothing() -> None:
    learner = Parabola()
    fitted = run(learner, steps=0, validate=lambda: 1.0)
    assert learner.w.item() == 0.0
    assert fitted.best is None


@pytest.mark.parametrize(("higher", "kept"), [(True, 0.75), (False, 0.5)])
def test_the_best_validated_state_is_kept(higher: bool, kept: float) -> None:
    values = iter([0.3, 0.9, 0.4, 0.5])
    learner = Parabola()
    fitted = run(learner, validate=lambda: next(values), validate_every=1, higher_is_better=higher)
    assert learner.w.item() == pytest.approx(kept)
    assert (fitted.best, fitted.best_step) == ((0.9, 2) if higher else (0.3, 1))


def test_last_state_is_kept_on_demand() -> None:
    values = iter([0.9, 0.1])
    learner = Parabola()
    run(learner, steps=2, validate=lambda: next(values), validate_every=1, keep_best=False)
    assert learner.w.item() == pytest.approx(0.75)


def test_validates_every_so_often_and_at_the_end() -> None:
    recorder = Memory()
    run(Parabola(), recorder, steps=5, validate=lambda: 0.5, validate_every=2)
    validated = [step for _, step, m in recorder.lines if "validate/accuracy" in m]
    assert validated == [1, 3, 4]


def test_each_step_has_at_most_one_line() -> None:
    recorder = Memory()
    run(Parabola(), recorder, steps=30, validate=lambda: 0.5, validate_every=10)
    steps = [step for _, step, _ in recorder.lines]
    assert len(steps) == len(set(steps))


def test_infinite_loss_is_caught_before_the_update() -> None:
    learner = Parabola()
    settings: dict[str, Any] = {
        "context": StageContext("meta_train", Memory(), Precision(None, "cpu"), STEEP),
        "steps": 3,
    }
    batches = [1.0, float("inf"), 1.0]
    with pytest.raises(NotFiniteError, match="meta_train, step 1: the loss is inf; lower meta_tr"):
        fit(learner, Objective(), lambda step: torch.tensor([batches[step]]), **settings)
    assert learner.w.item() == pytest.approx(0.5)


def test_interrupt_leaves_a_checkpoint() -> None:
    recorder = Memory()

    def interrupted(step: int) -> Tensor:
        if step == 2:
            raise KeyboardInterrupt
        return torch.ones(1)

    with pytest.raises(KeyboardInterrupt):
        fit(
            Parabola(),
            Objective(),
            interrupted,  # type: ignore[arg-type]
            StageContext("warmstart", recorder, Precision(None, "cpu"), STEEP),
            steps=5,
        )
    state = recorder.saved[-1]
    assert (state["stage"], state["step"]) == ("warmstart", 2)
    assert state["learner"]["w"].item() == pytest.approx(0.75)


def test_the_teacher_s_answers_can_be_broken_off() -> None:
    """Those to the first batch may take an hour."""
    answered = []

    def answers_to(batch: Any) -> None:
        signal.raise_signal(signal.SIGTERM)
        answered.append(batch)

    learner = Parabola()
    with interrupts() as stop, pytest.raises(Interrupted):
        fit(
            learner,
            Objective(),
            lambda step: torch.ones(1),  # type: ignore[arg-type, return-value]
            StageContext("warmstart", Recorder(stop=stop), Precision(None, "cpu"), STEEP),
            steps=5,
            answers_to=answers_to,
        )
    assert answered == []
    assert learner.w.item() == 0.0


class Pair(Parabola):
    """Beside w a parameter v with the loss (v - 2 batch)² / 2 and an optimiser of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.v = nn.Parameter(torch.zeros(1))
        self.own = torch.optim.SGD([self.v], 0.25)
        self.began: list[tuple[int, int]] = []

    def begin(self, step: int, steps: int) -> None:
        self.began.append((step, steps))

    def own_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"v": self.own}

    def accumulate(self, batch: Any, objective: Any, answers: Any) -> dict[str, Tensor]:
        assert self.v.grad is None  # set to zero before each update
        ((self.v - 2 * batch).pow(2).sum() / 2).backward()
        return super().accumulate(batch, objective, answers)

    def advance(self) -> dict[str, Tensor]:
        self.own.step()
        return {"adversarial/loss": self.v.detach().sum()}

    def concerns(self) -> list[str]:
        return ["v is far away"]


class Warned(Memory):
    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def warn(self, text: str) -> None:
        self.said.append(text)


def test_optimizers_of_the_learners_own() -> None:
    """Left out of the stage's, scheduled with it, stepped by the learner, saved and logged."""
    learner, recorder = Pair(), Warned()
    how = Optimization(optimizer="plain_sgd", lr=0.5, schedule="linear")
    run(learner, recorder, steps=2, optimization=how, log_every=1)
    assert learner.w.item() == pytest.approx(1 - 0.5 * 0.75)
    assert learner.v.item() == pytest.approx(2 * (1 - 0.75 * 0.875))  # rates 0.25 and 0.125
    assert learner.began == [(0, 2), (1, 2)]
    assert recorder.lines[0][2]["adversarial/loss"] == pytest.approx(0.5)
    assert recorder.said == ["v is far away"]
    run(learner, recorder, steps=1, validate=lambda: 1.0)
    assert recorder.saved[-1]["own_optimizers"]["v"]["param_groups"]


def test_clip_bounds_the_learners_own_too() -> None:
    learner = Pair()
    run(learner, steps=1, optimization=Optimization(optimizer="plain_sgd", lr=1.0, clip=0.1))
    assert learner.v.item() == pytest.approx(0.025)
