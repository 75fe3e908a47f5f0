"""The results of `metakd predict`: a class for each image, and accuracy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from metakd.errors import UserError
from metakd.reports.statistics import wilson95
from metakd.runs.record import known
from metakd.runs.records_using import (
    ClassFigures,
    Prediction,
    Predictions,
    Strangers,
    Unreadable,
)
from metakd.using.classifier import Answers, FewShotClassifier
from metakd.using.folders import Asked

__all__ = ["COLUMNS", "Naming", "learn_examples", "name_pictures", "printable"]


@dataclass
class Naming:
    """All predictions.

    Attributes:
        classes: in the order of the confusion table.
        predictions: one for each image that could be read, in the order given.
        unreadable: the others.
        what: what was asked about, in the plural.
        marks: whether some could be marked unknown.
    """

    classes: list[str]
    predictions: list[Prediction] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)
    what: str = "images"
    marks: bool = False

    def _evaluated(self) -> list[Prediction]:
        return [p for p in self.predictions if p.truth in self.classes]

    @property
    def strangers(self) -> list[Prediction]:
        """Images whose folder has the name of no class."""
        return [p for p in self.predictions if p.truth not in (None, *self.classes)]

    def confusion(self) -> list[list[int]]:
        """Return the confusion matrix: rows are true classes, columns predictions."""
        place = {name: i for i, name in enumerate(self.classes)}
        table = [[0] * len(self.classes) for _ in self.classes]
        for p in self._evaluated():
            assert p.truth is not None
            table[place[p.truth]][place[p.name]] += 1
        return table

    def record(self) -> Predictions:
        """Return what `--json` prints; accuracy and the rest over images of known class."""
        evaluated, strangers = self._evaluated(), self.strangers
        found: dict[str, Any] = {}
        if self.unreadable:
            found["unreadable"] = self.unreadable
        if evaluated:
            table = self.confusion()
            right = sum(row[i] for i, row in enumerate(table))
            low, high = wilson95(right, len(evaluated))
            found |= {
                "accuracy": right / len(evaluated),
                "ci95": (high - low) / 2,
                "interval": [low, high],
                "files": len(evaluated),
                "confusion": table,
                "per_class": {
                    name: ClassFigures(accuracy=row[i] / sum(row), files=sum(row))
                    for i, (name, row) in enumerate(zip(self.classes, table, strict=True))
                    if sum(row)
                },
            }
            if self.marks:
                found["false_alarms"] = sum(p.unknown for p in evaluated) / len(evaluated)
        if strangers:
            marked = sum(p.unknown for p in strangers) / len(strangers)
            found["strangers"] = Strangers(
                files=len(strangers), **known(unknown=marked if self.marks else None)
            )
        return Predictions(classes=self.classes, predictions=self.predictions, **found)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield a row of the CSV file for each image, also for unreadable ones."""
        for p in self.predictions:
            yield {
                "file": p.file,
                "class": p.name,
                "probability": repr(p.probability),
                "second": p.second or "",
                "second_probability": ""
                if p.second_probability is None
                else repr(p.second_probability),
                "unknown": "true" if p.unknown else "false",
                "truth": p.truth or "",
                "error": "",
            }
        for one in self.unreadable:
            yield {"file": one.file, "error": one.reason}


COLUMNS = (
    "file",
    "class",
    "probability",
    "second",
    "second_probability",
    "unknown",
    "truth",
    "error",
)
"""Of the CSV file."""


def learn_examples(model: FewShotClassifier, examples: Mapping[str, Sequence[Any]]) -> None:
    """Show a learner the images, or the rows, of each class.

    Raises:
        UserError: an image cannot be read (the message names it), or there are too many classes.
    """
    given = [one for each in examples.values() for one in each]
    labels = [name for name, each in examples.items() for _ in each]
    model.fit(given, labels)


def name_pictures(
    model: FewShotClassifier, asked: Sequence[Asked], unknown: float | None = None
) -> Naming:
    """Classify images with a fitted learner; unreadable ones are listed separately.

    Args:
        model: fitted.
        asked: the images.
        unknown: the false-alarm rate at which images are marked unknown; None: none is.

    Raises:
        UserError: no threshold for unknown images, or answers that are not finite.
    """
    given = next((one.row for one in asked if one.row is not None), None)
    what = "images" if given is None else "texts" if isinstance(given, str) else "rows"
    naming = Naming([str(name) for name in model.classes_], what=what, marks=unknown is not None)
    # With transductive batch norm an answer depends on all images of a call.
    size = model.batch_size if model.batchnorm == "inductive" else max(1, len(asked))
    for first in range(0, len(asked), size):
        part = asked[first : first + size]
        read = model.read([one.given for one in part])
        sound: list[tuple[Asked, Any]] = []
        for one, pixels in zip(part, read, strict=True):
            if isinstance(pixels, UserError):
                naming.unreadable.append(Unreadable(file=printable(one.path), reason=str(pixels)))
            else:
                sound.append((one, pixels))
        if sound:
            answers = model.answer([pixels for _, pixels in sound], unknown)
            naming.predictions += _named(naming.classes, [one for one, _ in sound], answers)
    return naming


def _named(classes: list[str], asked: list[Asked], answers: Answers) -> Iterator[Prediction]:
    for i, one in enumerate(asked):
        probabilities = answers.probabilities[i]
        # The class by the largest logit, also where two probabilities round to the same number.
        best = classes.index(str(answers.classes[i]))
        others = [int(j) for j in np.argsort(-probabilities, kind="stable") if j != best]
        yield Prediction(
            file=printable(one.path),
            name=classes[best],
            probability=float(probabilities[best]),
            second=classes[others[0]] if others else None,
            second_probability=float(probabilities[others[0]]) if others else None,
            unknown=answers.unknown is not None and bool(answers.unknown[i]),
            **known(truth=one.truth),
        )


def printable(path: Path) -> str:
    r"""Return a path as text; bytes that are no UTF-8 are written as ``\xe9``."""
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
