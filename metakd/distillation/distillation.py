"""What the losses share that add weighted terms of a teacher's answer to the one on the labels."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from metakd.distillation.divergences import widened
from metakd.distillation.objective import Answer, Objective, named_total
from metakd.distillation.schedules import Schedule
from metakd.errors import UserError, nearest
from metakd.models.network import Prediction

__all__ = ["Distillation", "check_weight", "embeddings_of", "logits_of"]


_OF_THE_GROUP = ("kd_weight", "embedding_weight", "similarity_weight")
"""Weights that are settings of every distillation; others are options."""


def check_weight(name: str, value: float, most: float = float("inf")) -> float:
    """Return `value` if it lies in [0, most].

    Raises:
        UserError: it does not.
    """
    if not 0.0 <= value <= most:
        span = "0 or more" if most == float("inf") else f"between 0 and {most:g}"
        raise UserError(f"distill.{name}={value:g}: must be {span}")
    return value


def logits_of(answer: Answer, student: Prediction, loss: str) -> Tensor:
    """Return the teacher's logits [..., n, classes] in float32 or wider.

    Raises:
        ValueError: the answer has none, or they are not of the student's classes.
    """
    if answer.logits is None:
        raise ValueError(f"distill={loss} needs the teacher's logits; its answer has none")
    if answer.logits.shape != student.logits.shape:
        raise ValueError(
            f"teacher's logits {tuple(answer.logits.shape)} and student's "
            f"{tuple(student.logits.shape)} differ in shape"
        )
    return widened(answer.logits)


def embeddings_of(student: Prediction, answer: Answer) -> tuple[Tensor, Tensor]:
    """Return the student's and the teacher's embeddings of the same examples, [..., n, size].

    Raises:
        ValueError: one side has none.
    """
    if student.embeddings is None or answer.embeddings is None:
        side = "student's prediction" if student.embeddings is None else "teacher's answer"
        raise ValueError(f"matching embeddings needs them on both sides; the {side} has none")
    return widened(student.embeddings), widened(answer.embeddings)


class Distillation(Objective):
    """L = ce_weight · L_CE + the weighted terms that `taught` returns.

    A term whose weight is 0 is neither computed nor logged. Computes in float32, also inside an
    autocast region.

    Attributes:
        ce_weight: weight of the loss on the labels; a subclass sets it.
    """

    ce_weight: float

    def __init__(
        self,
        student_size: int = 0,
        teacher_size: int = 0,
        teacher_mean: Tensor | None = None,
    ) -> None:
        super().__init__(student_size, teacher_size, teacher_mean)
        self.schedules: dict[str, Schedule] = {}
        self._set: dict[str, float] = {}

    def scheduled_values(self) -> dict[str, float]:
        """Return the values that can have a schedule, by name: weights, and the temperature."""
        names = [n for n in vars(self) if n.endswith("_weight") or n == "temperature"]
        return {name: float(getattr(self, name)) for name in names}

    def set_value(self, name: str, value: float) -> None:
        """Let one of `scheduled_values` have another value."""
        setattr(self, name, value)

    def follow(self, schedules: Mapping[str, Any], place: str = "distill.schedules") -> None:
        """Let values change in the course of each stage.

        Args:
            schedules: by name of a value, what `Schedule.of` takes.
            place: the setting that holds them, for errors.

        Raises:
            UserError: there is no such value, it is 0 as it is set, its schedule is wrong or leads
                to a value that cannot be, or all weights are 0 in the end.
        """
        values = self.scheduled_values()
        for name, typed in schedules.items():
            if name not in values:
                raise UserError(
                    f"{place}.{name}: this loss has no such value; it has "
                    f"{', '.join(values)}.{nearest(name, values)}"
                )
            if not values[name]:
                raise UserError(
                    f"{place}.{name}: {name} is 0, which switches it off; set it above 0"
                )
            found = Schedule.of(name, typed, values[name], place)
            for value in (found.start, found.end):
                self.set_value(name, value)  # which refuses what cannot be
            self.schedules[name], self._set[name] = found, values[name]
        if schedules and not self.total_weight():
            raise UserError(
                f"{place}: all weights of the loss are 0 in the end, so nothing would be learnt "
                "there; let one of them end above 0"
            )
        for name, value in self._set.items():
            self.set_value(name, value)

    def total_weight(self) -> float:
        """Return the sum of the weights, as they are now."""
        names = [name for name in vars(self) if name.endswith("_weight")]
        return sum(self.weight(f"loss/{n.removesuffix('_weight')}") or 0.0 for n in names)

    def taught_in_the_end(self) -> float:
        """Return the sum of the weights of what `taught` returns, where the schedules end."""
        for name, schedule in self.schedules.items():
            self.set_value(name, schedule.end)
        total = self.total_weight() - self.ce_weight
        for name, value in self._set.items():
            self.set_value(name, value)
        return total

    @property
    def reads(self) -> frozenset[str]:
        """See `Objective.reads`: whatever the schedules have come to."""
        return self.needed({**vars(self), **self._set})

    def begin(self, step: int, steps: int, *, whole: bool) -> None:
        """See `Objective.begin`: values with a schedule move on."""
        for name, schedule in self.schedules.items():
            self.set_value(name, schedule.at(step, steps))

    def advance(self) -> dict[str, float]:
        """See `Objective.advance`: the values that have a schedule."""
        if not self.schedules:
            return {}
        values = self.scheduled_values()
        return {f"distill/{name}": values[name] for name in self.schedules}

    def weights(self) -> dict[str, float]:
        """See `Objective.weights`; one with a schedule has no weight that holds for the stage."""
        moving = {f"loss/{name.removesuffix('_weight')}" for name in self.schedules}
        return {name: w for name, w in super().weights().items() if name not in moving}

    @property
    def mean_over_examples(self) -> bool:
        """See `Objective`; a subclass that compares examples says otherwise."""
        return True

    def weigh(self, loss: str, ce_weight: float, **weights: float) -> None:
        """Set the weights as attributes of their names.

        Args:
            loss: its name, for errors.
            ce_weight: of the labels.
            weights: of its terms.

        Raises:
            UserError: one is negative, or all are 0.
        """
        self.ce_weight = check_weight("ce_weight", ce_weight)
        typed = {name: name if name in _OF_THE_GROUP else f"options.{name}" for name in weights}
        for name, weight in weights.items():
            setattr(self, name, check_weight(typed[name], weight))
        if not ce_weight + sum(weights.values()):
            raise UserError(
                f"all weights of distill={loss} are 0, so nothing would be learnt; set "
                f"distill.ce_weight or distill.{next(iter(typed.values()))} above 0"
            )

    @abstractmethod
    def taught(
        self, student: Prediction, targets: Tensor, answer: Answer
    ) -> dict[str, tuple[float, Tensor]]:
        """Return the terms that read the teacher's answer: by name weight and value.

        Args:
            student: its logits in float32 or wider, the rest as the network gave it.
            targets: as in `Objective.forward`.
            answer: the teacher's.
        """

    def forward(
        self, student: Prediction, targets: Tensor, answer: Answer | None
    ) -> dict[str, Tensor]:
        """Return `loss` and the named terms; see `Objective.forward`.

        Raises:
            ValueError: the answer or the prediction lacks what a term reads.
        """
        if answer is None:
            return super().forward(student, targets, None)
        weighted: dict[str, tuple[float, Tensor]] = {}
        with torch.autocast(student.logits.device.type, enabled=False):
            student = student._replace(logits=widened(student.logits))
            if self.ce_weight:
                weighted["loss/ce"] = (self.ce_weight, self.label_loss(student.logits, targets))
            weighted |= self.taught(student, targets, answer)
        if not weighted:
            raise ValueError("no term could be computed: the teacher's answer has no logits")
        return named_total(weighted)
