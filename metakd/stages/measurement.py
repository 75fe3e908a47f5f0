"""What an evaluation found: a value for each task, and the figures that are made of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from statistics import median
from typing import Any, ClassVar

from torch import Tensor

from metakd.reports.divergence import answers, diverged_tasks
from metakd.reports.statistics import mean_ci95

__all__ = ["Measurement", "task_values"]


@dataclass(frozen=True)
class Measurement:
    """The result on each evaluation task of one setting.

    Attributes:
        values: [tasks] float64 on the CPU: accuracy (0 … 1; what is not finite is no answer and
            so a wrong one), or mean squared error.
        kind: `classification` or `regression`.
        ways: classes of a task.
        shots: support examples of a class.
        queries: query examples of a class.
        steps: adaptation steps; None where the algorithm takes none.
        batchnorm: `inductive`, `transductive`; None where it makes no difference.
        logits: [tasks, ways * queries, ways] on the CPU.
        targets: [tasks, ways * queries] on the CPU.
        classes: [tasks, ways] on the CPU, the class behind each label; empty for regression.
        judging: `centred` and `augmented_shots` of results.json, where they are not as usual.
    """

    values: Tensor
    kind: str
    ways: int
    shots: int
    queries: int
    steps: int | None
    batchnorm: str | None
    logits: Tensor
    targets: Tensor
    classes: Tensor
    judging: Mapping[str, Any] = field(default_factory=dict)

    called: ClassVar[str] = "fewshot"
    """Its name in results.json."""
    unit: ClassVar[str] = "tasks"
    """What `values` are of."""

    @cached_property
    def diverged(self) -> Tensor:
        """Which tasks diverged (`diverged_tasks`): [tasks] bool."""
        return diverged_tasks(self.logits, self.targets)

    @property
    def share_diverged(self) -> float:
        """The share of tasks that diverged, 0 … 1."""
        return float(self.diverged.double().mean())

    def figures(self) -> dict[str, Any]:
        """Return the entry of results.json: mean, 95 % interval and what was measured.

        If tasks diverged it holds their share (`diverged`). There is no mean squared error then,
        neither of all tasks nor of those that are left, which would be the easier ones: `mse` is
        not a number, and `mse_median` is the median over all tasks, infinite where half diverged.
        """
        entry: dict[str, Any]
        if self.kind == "regression":
            entry = {**self._error(), "tasks": len(self.values), "shots": self.shots}
        else:
            mean, half = mean_ci95(self.values.tolist())
            entry = {
                "accuracy": mean,
                "ci95": half,
                "tasks": len(self.values),
                "ways": self.ways,
                "shots": self.shots,
                "queries": self.queries,
            }
        if self.steps is not None:
            entry["steps"] = self.steps
        if self.batchnorm is not None:
            entry["batchnorm"] = self.batchnorm
        entry |= self.judging
        if self.diverged.any():
            entry["diverged"] = self.share_diverged
        return entry

    def _error(self) -> dict[str, float]:
        if not self.diverged.any():
            mean, half = mean_ci95(self.values.tolist())
            return {"mse": mean, "ci95": half}
        errors = self.values.masked_fill(self.diverged, math.inf).tolist()
        return {"mse": math.nan, "ci95": math.nan, "mse_median": median(errors)}

    def rows(self, model: str) -> Iterator[dict[str, Any]]:
        """Yield a row of episodes.csv for each task; `diverged` is 1 where it did."""
        regression = self.kind == "regression"
        column = "mse" if regression else "accuracy"
        for task, value in enumerate(self.values.tolist()):
            row = {
                "model": model,
                "shots": self.shots,
                "steps": "" if self.steps is None else self.steps,
                "batchnorm": self.batchnorm or "",
                "task": task,
                column: value,
            }
            if self.diverged[task]:
                row["diverged"] = 1
                row[column] = value if math.isfinite(value) else ""
            yield row


def task_values(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return accuracy or mean squared error of each task, [tasks] float64."""
    if targets.is_floating_point():
        return (outputs.double() - targets.double()).pow(2).flatten(1).mean(1)
    return (answers(outputs) == targets).double().mean(1)
