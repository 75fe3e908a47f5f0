"""Accuracy of each group of classes, counted by hand."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from metakd.data.class_examples import ClassExamples
from metakd.reports.by_group import accuracy_by_group
from metakd.reports.statistics import mean_ci95


def test_by_hand() -> None:
    """Three tasks of two ways: of the groups a and b, of b alone, of a and b; c has one task."""
    none = torch.zeros(0)
    groups, names = torch.tensor([0, 0, 1, 1, 2]), tuple("vwxyz")
    examples = ClassExamples(none, none.long(), names, groups, none.bool(), ("a", "b", "c"))
    classes = torch.tensor([[0, 2], [3, 2], [1, 3]])
    targets = torch.tensor([[0, 0, 1, 1]] * 3)
    answered = torch.tensor([[0, 1, 1, 1], [0, 1, 0, 0], [1, 1, 1, 0]])
    logits = F.one_hot(answered, 2).float()
    found = accuracy_by_group(logits, targets, classes, examples)
    a, b = mean_ci95([0.5, 0.0]), mean_ci95([1.0, 0.25, 0.5])
    assert found == {
        "a": {"accuracy": a[0], "ci95": a[1], "tasks": 2},
        "b": {"accuracy": b[0], "ci95": b[1], "tasks": 3},
    }
    once = accuracy_by_group(logits[:1], targets[:1], classes[:1], examples)
    assert once == {}
