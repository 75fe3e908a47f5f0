"""Rows of numbers by class: how one becomes what a network takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from metakd.data.class_data import ClassData
from metakd.data.class_examples import ClassExamples, PreparedData
from metakd.data.preprocessing import Preprocessing
from metakd.errors import UserError

__all__ = ["FeatureData", "FeaturePreprocessing", "FeatureReading"]


@dataclass(frozen=True)
class FeatureReading:
    """How a table becomes rows of numbers.

    Attributes:
        columns: names of the features, in order.
        label: name of the column of classes.
        missing: cells without a value: `refuse` them, or take the meta-train `mean`.
    """

    columns: tuple[str, ...] = ()
    label: str = "label"
    missing: str = "refuse"


@dataclass(frozen=True)
class FeaturePreprocessing(Preprocessing):
    """What a network expects of a row: which columns, and their mean and deviation.

    Attributes:
        columns: names, in order.
        mean: of each column of the meta-train examples.
        std: likewise, the standard deviation.
        label: name of the column of classes in its table.
        missing: `refuse` cells without a value, or take the `mean`.
    """

    columns: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    label: str = "label"
    missing: str = "refuse"

    of: ClassVar[str] = "columns of numbers"

    def __post_init__(self) -> None:
        """Refuse values that no row can be prepared with.

        Raises:
            ValueError: saying what is wrong.
        """
        if not self.columns or len(set(self.columns)) < len(self.columns):
            raise ValueError("every column needs a name of its own")
        if not len(self.mean) == len(self.std) == len(self.columns):
            raise ValueError("mean and std need one number for each column")
        if not all(s > 0 for s in self.std):
            raise ValueError("std must be positive")

    @property
    def shape(self) -> tuple[int, ...]:
        """(columns,)."""
        return (len(self.columns),)

    def plain(self) -> dict[str, Any]:
        """See `Preprocessing.plain`."""
        return {
            "kind": "features",
            "columns": list(self.columns),
            "mean": list(self.mean),
            "std": list(self.std),
            "label": self.label,
            "missing": self.missing,
        }

    @classmethod
    def _from_plain(cls, content: Mapping[str, Any]) -> FeaturePreprocessing:
        if content["missing"] not in ("refuse", "mean"):
            raise ValueError("missing")
        return cls(
            columns=tuple(str(name) for name in content["columns"]),
            mean=tuple(float(x) for x in content["mean"]),
            std=tuple(float(x) for x in content["std"]),
            label=str(content["label"]),
            missing=str(content["missing"]),
        )

    def words(self) -> str:
        """Return it in a few words."""
        shown = ", ".join(self.columns[:3]) + " …" * (len(self.columns) > 3)
        return f"{len(self.columns)} columns ({shown}), standardised"

    def options(self) -> Mapping[str, Any]:
        """Return how its table was read."""
        return {"columns": list(self.columns), "label": self.label, "missing": self.missing}

    def with_options(self, options: Mapping[str, Any]) -> FeaturePreprocessing:
        """Return it for a table with another label column; the columns belong to the weights."""
        kept = {name: value for name, value in options.items() if name != "columns"}
        return replace(self, **kept)

    def with_statistics(
        self, mean: tuple[float, ...], std: tuple[float, ...]
    ) -> FeaturePreprocessing:
        """See `Preprocessing.with_statistics`."""
        return replace(self, mean=tuple(mean), std=tuple(std))

    def normalize(self, examples: Tensor) -> Tensor:
        """Return rows [n, columns] float64 as the network sees them, standardised, float32.

        A missing value (NaN) becomes 0, the mean.
        """
        mean, std = self._statistics(examples.device)
        seen = (examples.double() - mean) / std
        return torch.where(examples.isnan(), 0.0, seen).float()

    def _statistics(self, device: torch.device) -> tuple[Tensor, Tensor]:
        mean = torch.tensor(self.mean, dtype=torch.float64, device=device)
        return mean, torch.tensor(self.std, dtype=torch.float64, device=device)

    def places(self, columns: Sequence[str]) -> list[int]:
        """Return where its columns stand among `columns`.

        Raises:
            ValueError: one is missing.
        """
        at = {name: i for i, name in enumerate(columns)}
        for name in self.columns:
            if name not in at:
                raise ValueError(f"there is no column '{name}'")
        return [at[name] for name in self.columns]

    def differs(self, given: Preprocessing) -> bool:
        """See `Preprocessing.differs`; columns are matched by their names."""
        assert isinstance(given, FeaturePreprocessing)
        try:
            self.places(given.columns)
        except ValueError as error:
            raise UserError(
                f"{error} among the student's, and the teacher expects it: choose another teacher, "
                "or name it in dataset.options.columns"
            ) from error
        return (given.columns, given.mean, given.std) != (self.columns, self.mean, self.std)

    def converted(self, examples: Tensor, given: Preprocessing) -> Tensor:
        """See `Preprocessing.converted`."""
        assert isinstance(given, FeaturePreprocessing)
        (mean, std), at = given._statistics(examples.device), self.places(given.columns)
        values = (examples.double() * std + mean)[:, at]
        mean, std = self._statistics(examples.device)
        return ((values - mean) / std).to(examples.dtype)


class FeatureData(ClassData):
    """Rows of numbers, standardised on the compute device; see `ClassData`.

    Kept as [n, columns] float64, where NaN is a missing value; networks take float32.
    """

    examples_are = "rows"
    known_share = 0.5  # rows of few different values may be equal by chance
    preprocessing_type = FeaturePreprocessing
    reading_type = FeatureReading
    preprocessing: FeaturePreprocessing

    @classmethod
    def check(cls, prepared: PreparedData) -> None:
        """See `ClassData.check`."""
        prepared.check(torch.float64, 2)
        for name, found in prepared.splits.items():
            if found.examples.shape[1] != len(prepared.reading.columns):
                raise ValueError(f"{name}: as many columns as names are needed")
            bad = found.examples.isinf()
            if prepared.reading.missing != "mean":
                bad = bad | found.examples.isnan()
            if bool(bad.any()):
                raise ValueError(f"{name}: a number that is not finite")

    @classmethod
    def reading_from(cls, plain: Mapping[str, Any]) -> FeatureReading:
        """See `ClassData.reading_from`."""
        columns = tuple(str(name) for name in plain["columns"])
        return FeatureReading(columns, str(plain["label"]), str(plain["missing"]))

    @classmethod
    def measured(cls, train: ClassExamples, prepared: PreparedData) -> FeaturePreprocessing:
        """Return mean and deviation of each column; a constant one has deviation 1."""
        mean, std = column_statistics(train.examples[~train.held_out])
        reading = prepared.reading
        return FeaturePreprocessing(
            reading.columns,
            tuple(mean.tolist()),
            tuple(std.tolist()),
            reading.label,
            reading.missing,
        )

    @classmethod
    def fitted(cls, prepared: PreparedData, preprocessing: Preprocessing) -> PreparedData:
        """Return the rows with the columns that networks expect, matched by their names."""
        assert isinstance(preprocessing, FeaturePreprocessing)
        at = preprocessing.places(prepared.reading.columns)
        splits = {
            name: replace(found, examples=found.examples[:, at])
            for name, found in prepared.splits.items()
        }
        reading = replace(prepared.reading, columns=preprocessing.columns)
        return replace(prepared, splits=splits, reading=reading)

    def _seen(self, examples: Tensor, keys: Tensor | None, active: Tensor | None) -> Tensor:
        return self.preprocessing.normalize(examples)


def column_statistics(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each column.

    Args:
        rows: [n, columns] float64, n of at least 1; NaN: missing.

    Returns:
        two tensors [columns] float64. A column without a value has mean 0; one without two
        different values has deviation 1.
    """
    known = ~rows.isnan()
    counts = known.sum(0).clamp(min=1)
    # In units of the largest value squares cannot overflow.
    largest = torch.where(known, rows, 0.0).abs().amax(0)
    unit = torch.where(largest > 0, largest, 1.0)
    scaled = torch.where(known, rows / unit, 0.0)
    mean = scaled.sum(0) / counts
    variance = torch.where(known, scaled - mean, 0.0).square().sum(0) / counts
    std = variance.sqrt() * unit
    low = torch.where(known, rows, torch.inf).amin(0)
    high = torch.where(known, rows, -torch.inf).amax(0)
    return mean * unit, torch.where((low < high) & (std > 0), std, 1.0)
