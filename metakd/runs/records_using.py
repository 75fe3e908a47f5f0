"""checkpoints/calibration.json, and what `metakd predict --json` prints."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal, Self

from annotated_types import Len
from pydantic import ConfigDict, Field, computed_field, model_validator

from metakd.runs.record import (
    Count,
    File,
    Flag,
    Maybe,
    Number,
    Part,
    Positive,
    PositiveNumber,
    Share,
)

__all__ = [
    "QUANTILES",
    "Calibration",
    "CalibrationFile",
    "ClassFigures",
    "CurvePoint",
    "Prediction",
    "Predictions",
    "Score",
    "Strangers",
    "Unreadable",
]

QUANTILES = 201
"""Number of evenly spaced quantiles of a score that are kept, minimum and maximum included."""


Score = Literal["probability", "energy", "nearest", "lead"]


class CurvePoint(Part):
    """What rejecting a share of the known queries does, on other tasks."""

    rate: Share
    """Of known queries that are to be rejected."""
    false_alarms: Share
    """Share of known queries that is."""
    found: Share
    """Share of queries of other classes that is."""


def _with_temperature(schema: dict[str, Any]) -> None:
    schema["properties"]["temperature"] = {
        "description": "One over the scale.",
        "exclusiveMinimum": 0,
        "type": "number",
    }


class Calibration(Part):
    """Values fitted on meta-validation tasks like those that the model is evaluated on."""

    model_config = ConfigDict(json_schema_extra=_with_temperature)

    scale: PositiveNumber
    """By which logits are multiplied before the softmax."""
    split: Annotated[str, Field(alias="part")]
    """Whose classes the tasks were made of."""
    tasks: Count
    ways: Count
    shots: Count
    score: Score
    """What tells known queries from unknown ones."""
    quantiles: tuple[Number, ...]
    """Of that score over known queries; none, or 201 that ascend."""
    auroc: dict[str, Share]
    """By score, on queries of classes that were not shown; empty if there were none."""
    curve: tuple[CurvePoint, ...]
    """Of the chosen score, on the same tasks."""

    @computed_field
    def temperature(self) -> float:
        """Return one over the scale."""
        return 1.0 / self.scale

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        q = self.quantiles
        if q and (len(q) != QUANTILES or any(a > b for a, b in pairwise(q))):
            raise ValueError(f"has quantiles that are not {QUANTILES} or do not ascend")
        return self


class CalibrationFile(File):
    """What meta-validation tasks say of the confidence of a run's models."""

    model_config = ConfigDict(
        title="checkpoints/calibration.json of a MetaKD run",
        json_schema_extra={"required": ["schema", "models"]},
    )
    remedy: ClassVar[str] = "remove it, or train again"

    models: dict[str, Calibration]


class Prediction(Part):
    """The prediction for one image or row."""

    file: str
    """Its path as it was given."""
    name: Annotated[str, Field(alias="class")]
    probability: Share
    """Of the class; calibrated if the run was."""
    second: str | None
    """The runner-up; null with one class."""
    second_probability: Share | None = None
    unknown: Flag
    """Looks like none of the classes (with --unknown)."""
    truth: Maybe[str] = None
    """The name of its folder, where the asked folder holds folders."""


class Unreadable(Part):
    """What could not be read."""

    file: str
    reason: str


class ClassFigures(Part):
    """How well a class was recognised."""

    accuracy: Share
    files: Positive


class Strangers(Part):
    """Pictures whose folder has the name of no class."""

    files: Positive
    unknown: Maybe[Share] = None
    """Share of them that is marked unknown, where a rate of false alarms was given."""


class Predictions(File):
    """A class for each image; figures where their folders name classes."""

    model_config = ConfigDict(
        title="what metakd predict --json prints",
        json_schema_extra={"required": ["schema", "classes", "predictions"]},
    )

    classes: list[str]
    """Those that were shown, in the order of the confusion table."""
    predictions: list[Prediction]
    """One for each picture that could be read, in the order asked."""
    unreadable: Maybe[list[Unreadable]] = None
    accuracy: Maybe[Share] = None
    """Of the pictures whose folder is called like one of the classes, marked unknown or not."""
    ci95: Maybe[Share] = None
    """Half the width of interval."""
    interval: Maybe[Annotated[list[Share], Len(2, 2)]] = None
    """Wilson's 95 % interval over pictures."""
    files: Maybe[Positive] = None
    """How many pictures that is."""
    confusion: Maybe[list[list[Count]]] = None
    """Row: the true class, column: the answer."""
    per_class: Maybe[dict[str, ClassFigures]] = None
    false_alarms: Maybe[Share] = None
    """Share of these pictures that is marked unknown, where a rate of false alarms was given."""
    strangers: Maybe[Strangers] = None
