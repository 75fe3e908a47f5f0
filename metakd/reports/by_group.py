"""Accuracy on the queries of each group of classes, such as a dataset of several."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from metakd.data.class_examples import ClassExamples
from metakd.reports.divergence import answers
from metakd.reports.statistics import mean_ci95

__all__ = ["accuracy_by_group", "share_right_by_group"]


def share_right_by_group(right: Tensor, of: Tensor, group: int) -> Tensor:
    """Return for each task with queries of a group the share of these that was right, [m] float64.

    Args:
        right: [tasks, queries] bool.
        of: [tasks, queries] int64, the group of each query's class.
        group: whose queries count.
    """
    own = of == group
    counts = own.sum(1)
    return ((right & own).sum(1).double() / counts.clamp(min=1))[counts > 0]


def accuracy_by_group(
    logits: Tensor, targets: Tensor, classes: Tensor, examples: ClassExamples
) -> dict[str, dict[str, Any]]:
    """Return by name of a group `accuracy`, `ci95` and `tasks`, of the tasks with a query of it.

    A group with fewer than two such tasks has no interval and is left out.

    Args:
        logits: [tasks, queries, ways].
        targets: [tasks, queries] int64.
        classes: [tasks, ways] int64, the class behind each label.
        examples: of the split that was evaluated.
    """
    right = answers(logits) == targets
    of = examples.groups.cpu()[classes.gather(1, targets)]
    found = {}
    for group, name in enumerate(examples.group_names):
        values = share_right_by_group(right, of, group).tolist()
        if len(values) > 1:
            mean, half = mean_ci95(values)
            found[name] = {"accuracy": mean, "ci95": half, "tasks": len(values)}
    return found
