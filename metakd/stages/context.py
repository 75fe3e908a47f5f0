"""What every stage of a run is given: how it computes, and where its progress goes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from metakd.stages.optimization import Optimization
from metakd.stages.precision import Precision
from metakd.stages.recorder import Recorder

__all__ = ["StageContext", "Validation"]


@dataclass(frozen=True)
class StageContext:
    """Surroundings of a training stage.

    Attributes:
        stage: name under which metrics and checkpoints go.
        recorder: where they go, and what was done before comes from.
        precision: number format of forward passes.
        optimization: optimiser and schedule.
        seed: decides order and augmentation, by name of the stream.
    """

    stage: str
    recorder: Recorder
    precision: Precision
    optimization: Optimization = field(default_factory=Optimization)
    seed: int = 0


@dataclass(frozen=True)
class Validation:
    """How a stage chooses among the states that it passes through.

    Attributes:
        measure: returns the validation value of the learner as it is now.
        every: steps between validations; 0: only at the end.
        higher_is_better: false for errors (regression).
        keep_best: go back to the best validated state at the end.
    """

    measure: Callable[[], float]
    every: int = 0
    higher_is_better: bool = True
    keep_best: bool = True
