"""`ema`: the average of weights over updates, which is validated and kept in their place."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from metakd.adaptation.algorithm import Algorithm
from metakd.distillation.objective import Objective
from metakd.models.normalization import BatchNorm2d
from metakd.stages.fit import Fitted, StageContext, Validation, fit
from metakd.stages.optimization import Optimization
from metakd.stages.precision import Precision
from metakd.stages.recorder import Recorder
from metakd.stages.weight_average import WeightAverage

BY_HAND = (0.5, 0.725, 2 / 11 * 0.725 + 9 / 11 * 0.875)
"""Averages of the weights 0.5, 0.75, 0.875 with decays 0, 1 / 10 and 2 / 11."""


class Parabola(Algorithm):
    """One parameter w with the loss (w - batch)² / 2; a rate of ½ halves the way that is left."""

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


class Kept(Recorder):
    """Keeps what it is told of checkpoints, and gives it to the next process."""

    def __init__(self, found: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.found = found
        self.saved: list[dict[str, Any]] = []
        self.best: list[Any] = []

    def last(self, stage: str) -> dict[str, Any] | None:
        return self.found

    def checkpoint(self, state: Any, best: Any = None) -> None:
        self.saved.append(copy.deepcopy(dict(state)))
        self.best.append(best)


def descend(
    learner: Parabola,
    recorder: Recorder | None = None,
    batches: Sequence[float] = (1.0, 1.0, 1.0),
    validation: Validation | None = None,
    stop_at: int | None = None,
    **how: Any,
) -> Fitted:
    settings = {"optimizer": "plain_sgd", "lr": 0.5, "ema": 0.9, **how}
    context = StageContext(
        "meta_train", recorder or Kept(), Precision(None, "cpu"), Optimization(**settings)
    )

    def batch_at(step: int) -> Any:
        if step == stop_at:
            raise KeyboardInterrupt
        return torch.tensor([batches[step]])

    return fit(
        learner, Objective(), batch_at, context, steps=len(batches), validation=validation
    )  # fmt: skip


@pytest.mark.parametrize("updates", [1, 2, 3])
def test_the_average_by_hand_is_what_is_left(updates: int) -> None:
    learner = Parabola()
    descend(learner, batches=[1.0] * updates)
    assert learner.w.item() == pytest.approx(BY_HAND[updates - 1], abs=1e-7)


def test_the_decay_is_never_above_the_one_that_is_set() -> None:
    learner = Parabola()
    descend(learner, ema=0.05)
    second = 0.05 * 0.5 + 0.95 * 0.75
    assert learner.w.item() == pytest.approx(0.05 * second + 0.95 * 0.875, abs=1e-7)


def test_the_average_is_validated_and_the_weights_go_on() -> None:
    learner, seen = Parabola(), list[float]()

    def measure() -> float:
        seen.append(learner.w.item())
        return -len(seen)

    recorder = Kept()
    fitted = descend(learner, recorder, validation=Validation(measure, 1))
    assert seen == pytest.approx(BY_HAND, abs=1e-7)
    assert fitted.best_step == 1
    assert learner.w.item() == pytest.approx(BY_HAND[0], abs=1e-7)  # its best, not its last
    assert recorder.best[-1]["learner"]["w"].item() == pytest.approx(BY_HAND[0], abs=1e-7)
    assert recorder.saved[-1]["learner"]["w"].item() == pytest.approx(0.875)


def test_a_validation_that_is_broken_off_leaves_the_weights() -> None:
    def measure() -> float:
        raise KeyboardInterrupt

    learner, recorder = Parabola(), Kept()
    with pytest.raises(KeyboardInterrupt):
        descend(learner, recorder, validation=Validation(measure))
    assert learner.w.item() == pytest.approx(0.875)
    assert recorder.saved[-1]["learner"]["w"].item() == pytest.approx(0.875)


def test_a_skipped_update_leaves_it_alone() -> None:
    learner = Parabola()
    descend(learner, batches=[1.0, float("inf"), 1.0], skip_nonfinite=1)
    assert learner.w.item() == pytest.approx(BY_HAND[1], abs=1e-7)


def test_it_goes_on_to_the_same_bits() -> None:
    whole, first, second = Parabola(), Parabola(), Parabola()
    descend(whole, batches=[1.0, 2.0, 3.0, 4.0])
    broken = Kept()
    with pytest.raises(KeyboardInterrupt):
        descend(first, broken, batches=[1.0, 2.0, 3.0, 4.0], stop_at=2)
    descend(second, Kept(broken.saved[-1]), batches=[1.0, 2.0, 3.0, 4.0])
    assert torch.equal(whole.w, second.w)


def test_running_statistics_are_averaged_and_counters_are_not() -> None:
    norm = BatchNorm2d(1)
    norm.register_buffer("taken", torch.zeros(1))
    average = WeightAverage(norm, 0.5)
    for value in (1.0, 3.0):
        with torch.no_grad():
            norm.running_mean.fill_(value)  # type: ignore[union-attr]
            norm.taken.fill_(value)  # type: ignore[operator, union-attr]
        average.update()
    assert average.average()["running_mean"].item() == pytest.approx(0.1 * 1 + 0.9 * 3)
    assert average.average()["taken"].item() == 3.0
    with average.shown():
        assert norm.running_mean.item() == pytest.approx(2.8)  # type: ignore[union-attr]
        assert average.weights()["running_mean"].item() == 3.0
    assert norm.running_mean.item() == 3.0  # type: ignore[union-attr]
