"""Values of a loss that change in the course of a stage: pure functions of the step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from metakd.errors import UserError, check_word, nearest

__all__ = ["SHAPES", "Schedule"]

SHAPES = ("constant", "linear", "cosine", "ramp_up")
_RAMP = 0.1
"""Share of the updates of a ramp-up, if none is set."""


@dataclass(frozen=True)
class Schedule:
    """How a weight or the temperature goes from one value to another.

    The first update is already one step on the way, so that a ramp-up never starts with a weight
    of 0; the last update of the share, and all after it, have the end.

    Attributes:
        shape: `constant` (the end all along), `linear`, `cosine` (half a wave) or `ramp_up`
            (linear, from 0).
        start: value before the first update.
        end: value after the last update of the share.
        share: of the stage's updates, in which it moves.
    """

    shape: str
    start: float
    end: float
    share: float = 1.0

    @classmethod
    def of(cls, name: str, typed: Any, value: float, place: str = "distill.schedules") -> Schedule:
        """Return the schedule of a setting as it is typed.

        Args:
            name: of the setting.
            typed: the shape alone, or a dictionary of some attributes. Left out, `start` and
                `end` are the setting's own value, 0 for the start of a ramp-up; `linear` and
                `cosine` need one of them.
            value: of the setting.
            place: the setting that holds the schedule, for errors.

        Raises:
            UserError: an unknown attribute or shape, a value that is not possible, or nowhere to
                go from the setting's own value.
        """
        where = f"{place}.{name}"
        given = dict(typed) if isinstance(typed, Mapping) else {"shape": typed}
        known = [f.name for f in fields(cls)]
        for key in given:
            if key not in known:
                raise UserError(f"{where}.{key}: there is no such key.{nearest(str(key), known)}")
        shape = str(given.setdefault("shape", "linear"))
        check_word(f"{where}.shape", shape, SHAPES)
        ramp = shape == "ramp_up"
        numbers = {"start": 0.0 if ramp else value, "end": value, "share": _RAMP if ramp else 1.0}
        for key in numbers:
            found = given.get(key, numbers[key])
            if isinstance(found, bool) or not isinstance(found, int | float):
                raise UserError(f"{where}.{key}={found}: expected a number")
            numbers[key] = float(found)
        if not 0 < numbers["share"] <= 1:
            raise UserError(f"{where}.share={numbers['share']:g}: must be above 0, at most 1")
        least = min(numbers["start"], numbers["end"])
        positive = name == "temperature"
        if (
            not math.isfinite(numbers["start"] + numbers["end"])
            or least < 0
            or (positive and least == 0)
        ):
            raise UserError(
                f"{where}: goes from {numbers['start']:g} to {numbers['end']:g}; both must be "
                f"{'above 0' if positive else '0 or more'}"
            )
        if shape in ("linear", "cosine") and not {"start", "end"} & given.keys():
            # Of what is always valid: a temperature is above 0, some weights are at most 1.
            further = f"start: {2 * value:g}" if name == "temperature" else "end: 0"
            raise UserError(
                f"{where}: {shape} from {value:g} to {value:g} changes nothing; give a start or "
                f'an end: type "{where}={{shape: {shape}, {further}}}"'
            )
        return cls(shape, numbers["start"], numbers["end"], numbers["share"])

    def at(self, step: int, steps: int) -> float:
        """Return the value in update `step`, counted from 0, of `steps`."""
        done = min(1.0, (step + 1) / (self.share * max(1, steps)))
        if self.shape == "constant":
            done = 1.0
        elif self.shape == "cosine":
            done = 0.5 * (1.0 - math.cos(math.pi * done))
        return self.start + done * (self.end - self.start)
