"""What was answered to the queries of each class, counted over tasks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metakd.reports.divergence import answers

__all__ = ["ByClass", "count_by_class"]


@dataclass(frozen=True)
class ByClass:
    """Counts over the queries of tasks, in each of which only a few of all classes are choices.

    Attributes:
        classes: [n] int64, ascending: the classes that took part in a task.
        answered: [n, n] int64: queries of the class of the row that were answered with the class of
            the column. Predictions that are not finite are no answer and stand nowhere.
        asked: [n, n] int64: queries of the row's class in whose tasks the column's class was a
            choice; on the diagonal all queries of the class.
    """

    classes: Tensor
    answered: Tensor
    asked: Tensor

    def rows(self, model: str, class_names: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Yield a row of per_class.csv for each class; what is no answer is not right either.

        A class that nothing was asked about has none.

        Args:
            model: `student`, `student_alone` or `teacher`.
            class_names: of all classes of the part, by their number.
        """
        right, asked = self.answered.diagonal().tolist(), self.asked.diagonal().tolist()
        for number, r, a in zip(self.classes.tolist(), right, asked, strict=True):
            if a:
                name = class_names[number]
                yield {"model": model, "class": name, "accuracy": r / a, "answers": a}


def count_by_class(logits: Tensor, targets: Tensor, classes: Tensor) -> ByClass:
    """Count the answers to the queries of tasks by true and answered class.

    Args:
        logits: [tasks, queries, ways].
        targets: [tasks, queries] int64, 0 … ways-1.
        classes: [tasks, ways] int64, the class behind each label.
    """
    # Numbered anew: a data set can have thousands of classes of which few take part.
    known, own = classes.unique(return_inverse=True)
    count = len(known)
    predicted = answers(logits)
    truth = own.gather(1, targets)
    answer = own.gather(1, predicted.clamp(min=0))
    pairs = (truth * count + answer)[predicted >= 0]
    choices = (truth[:, :, None] * count + own[:, None, :]).flatten()

    def table(pair: Tensor) -> Tensor:
        return torch.bincount(pair, minlength=count * count).view(count, count)

    return ByClass(known, table(pairs), table(choices))
