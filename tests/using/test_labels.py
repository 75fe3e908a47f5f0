"""Labels of many kinds, the order of the classes, what can be saved."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from metakd.errors import UserError
from metakd.using.labels import as_array, classes_of, labels_of, plain_labels


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (["b", "a"], ["b", "a"]),
        (np.array([3, 1]), [3, 1]),
        ([np.int64(3), np.str_("x")], [3, "x"]),
        (torch.tensor([2, 0]), [2, 0]),
        (np.array(["oak", "elm"]), ["oak", "elm"]),
        ([("a", 1), None], [("a", 1), None]),
        ([torch.tensor(4), torch.tensor(4)], [4, 4]),
        ([np.array("oak"), np.array(2)], ["oak", 2]),
    ],
)
def test_labels_become_plain_values(given: Any, found: list[Any]) -> None:
    labels = labels_of(given, 2)
    assert labels == found
    assert [type(a) for a in labels] == [type(b) for b in found]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["a"], "1 for 2 examples"),
        ("ab", "not str"),
        (5, "not int"),
        ([["a"], ["b"]], "has no hash"),
        ([float("nan"), 1.0], "nan is no class"),
        ([torch.tensor(float("nan")), 1.0], "nan is no class"),
        ([torch.tensor([1, 2]), 1], r"a tensor \[2\] is no class"),
    ],
)
def test_labels_that_are_none(given: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        labels_of(given, 2)
    assert "\n" not in str(refused.value)


def test_classes_are_sorted_where_they_can_be() -> None:
    assert classes_of(["oak", "elm", "oak"]) == ["elm", "oak"]
    assert classes_of([3, 1.5, True]) == [True, 1.5, 3]
    assert classes_of(["oak", 3, "elm"]) == ["oak", 3, "elm"]
    assert classes_of([(2, 1), (1, 2)]) == [(1, 2), (2, 1)]


def test_arrays_of_labels_keep_their_kind() -> None:
    assert as_array(["a", "bb"]).dtype.kind == "U"
    assert as_array([1, 2]).dtype.kind == "i"
    assert as_array([True, False]).dtype.kind == "b"
    mixed = as_array([(1, 2), (3, 4)])
    assert mixed.shape == (2,)
    assert mixed[1] == (3, 4)
    assert as_array([1, True]).dtype == object


def test_what_json_can_hold() -> None:
    assert plain_labels(["a", 1, 1.5, True, None]) == ["a", 1, 1.5, True, None]
    for label in ((1, 2), float("inf"), b"a"):
        with pytest.raises(UserError, match="cannot be saved"):
            plain_labels([label])
