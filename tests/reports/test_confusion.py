"""Which class is taken for which: counted over tasks, drawn as a matrix or as the worst pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metakd.reports.by_class import count_by_class
from metakd.reports.confusion import WHOLE, confused_pairs, confusion_figure


def _says(*answers: int) -> torch.Tensor:
    """Logits [queries, 2] that answer so; -1 is no answer."""
    rows = {0: [1.0, 0.0], 1: [0.0, 1.0], -1: [float("nan"), 0.0]}
    return torch.tensor([rows[a] for a in answers])


def test_answers_are_counted_by_class_over_tasks() -> None:
    """Tasks of the classes (7, 3) and (3, 9), two queries a class."""
    logits = torch.stack([_says(0, 1, 1, 1), _says(0, -1, 0, 1)])
    targets = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 1]])
    counted = count_by_class(logits, targets, torch.tensor([[7, 3], [3, 9]]))
    assert counted.classes.tolist() == [3, 7, 9]
    assert counted.answered.tolist() == [[3, 0, 0], [1, 1, 0], [1, 0, 1]]
    assert counted.asked.tolist() == [[4, 2, 2], [2, 2, 0], [2, 0, 2]]
    names = [f"class {i}" for i in range(10)]
    assert list(counted.rows("student", names)) == [
        {"model": "student", "class": "class 3", "accuracy": 0.75, "answers": 4},
        {"model": "student", "class": "class 7", "accuracy": 0.5, "answers": 2},
        {"model": "student", "class": "class 9", "accuracy": 0.5, "answers": 2},
    ]


def test_a_class_that_nothing_was_asked_about_has_no_row() -> None:
    counted = count_by_class(_says(0)[None], torch.tensor([[0]]), torch.tensor([[0, 1]]))
    assert [row["class"] for row in counted.rows("student", ["a", "b"])] == ["a"]


def test_the_worst_pair_is_worst_beyond_doubt() -> None:
    counts = np.array([[0, 40, 1], [0, 0, 0], [39, 0, 0]])
    asked = np.array([[100, 100, 1], [100, 100, 100], [100, 100, 100]])
    # 1 of 1 is at least 21 % (Wilson, 95 %), 40 of 100 at least 31 %.
    assert confused_pairs(counts, asked) == [(0, 1), (2, 0), (0, 2)]
    assert confused_pairs(counts, asked, 1) == [(0, 1)]


def test_few_classes_are_drawn_as_a_matrix(tmp_path: Path, drawn: list[Any]) -> None:
    out = tmp_path / "confusion.png"
    names = ["$x$", "a\nb", "x\udcff"]
    matrix, asked = [[9, 1, 0], [0, 4, 1], [0, 0, 0]], [[12, 10, 0], [4, 5, 5], [0, 0, 0]]
    assert confusion_figure(matrix, names, out, "50 % $of$ tasks", asked) == out
    axes = drawn[0].axes[0]
    shown = {(t.get_position()[1], t.get_position()[0]): t.get_text() for t in axes.texts}
    # Shares of the queries for which the class was a choice; a true class is a row.
    assert shown == {(0, 0): "75", (0, 1): "10", (1, 1): "80", (1, 2): "20"}
    labels = axes.get_yticklabels()
    assert [t.get_text() for t in labels] == ["$x$", "a�b", "x�"]
    assert not any(t.get_parse_math() for t in [*labels, *axes.get_xticklabels(), axes.title])
    assert axes.get_title() == "50 % $of$ tasks"


def test_without_asked_every_query_had_every_choice(tmp_path: Path, drawn: list[Any]) -> None:
    confusion_figure([[3, 1], [0, 0]], ["a", "b"], tmp_path / "c.png")
    assert [t.get_text() for t in drawn[0].axes[0].texts] == ["75", "25"]


def test_of_many_classes_the_worst_pairs_are_drawn(tmp_path: Path, drawn: list[Any]) -> None:
    n = WHOLE + 1
    matrix = np.eye(n, dtype=int) * 20
    matrix[4, 9], matrix[2, 3] = 12, 5
    confusion_figure(matrix, [f"class {i}" for i in range(n)], tmp_path / "c.png")
    axes = drawn[0].axes[0]
    labels = [t.get_text() for t in axes.get_yticklabels()]
    assert labels == ["class 4  →  class 9", "class 2  →  class 3"]
    assert [t.get_text() for t in axes.texts] == ["38 %  (12 of 32)", "20 %  (5 of 25)"]
    confusion_figure(np.eye(n), [str(i) for i in range(n)], tmp_path / "c.png")
    assert drawn[1].axes[0].texts[0].get_text() == "no class was taken for another"


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not fit 3 classes"):
        confusion_figure([[1, 0], [0, 1]], ["a", "b", "c"], tmp_path / "c.png")
    with pytest.raises(ValueError, match="do not match"):
        confusion_figure([[1, 0], [0, 1]], ["a", "b"], tmp_path / "c.png", asked=[[1]])
    assert confusion_figure([[0, 0], [0, 0]], ["a", "b"], tmp_path / "c.png") is None
