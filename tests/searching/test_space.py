"""Ranges, choices and conditions: what is read, what is refused, which combinations there are."""

from __future__ import annotations

from typing import Any

import pytest

from metakd.errors import UserError
from metakd.searching.space import Choice, Range, combinations, is_active, read_space


def test_whole_numbers_are_those_of_whole_settings() -> None:
    width, rate, option = read_space(
        {
            "student.width": {"low": 4, "high": 64, "log": True},
            "meta_train.lr": {"low": 1, "high": 2},
            "algorithm.options.k": {"low": 1, "high": 3},
        },
        "here",
    )
    assert width.domain == Range(4, 64, whole=True, log=True)
    assert rate.domain == Range(1, 2, whole=False)
    assert option.domain == Range(1, 3, whole=True)


def test_values_of_a_grid() -> None:
    assert Range(4, 12, whole=True, step=4).grid() == [4, 8, 12]
    assert Range(1, 3, whole=True).grid() == [1, 2, 3]
    assert Range(0.1, 0.4, step=0.1).grid() == [0.1, 0.2, 0.3, 0.4]
    assert Range(0.1, 0.4).grid() is None
    assert Choice(("a", None, 2)).grid() == ["a", None, 2]


def test_lists_are_choices_as_they_are_written() -> None:
    (widths,) = read_space({"student.widths": {"choices": [[4, 8], [8, 8]]}}, "here")
    assert widths.domain == Choice(("[4,8]", "[8,8]"))


CONDITIONAL = {
    # its condition stands further down
    "distill.temperature": {"low": 1, "high": 8, "only_if": {"distill": ["kd", "kd_convex"]}},
    "distill": {"choices": ["none", "kd", "embedding"]},
    "seed": {"choices": [0, 1], "only_if": {"algorithm": "maml"}},
}


def test_conditions_come_first_and_hold() -> None:
    with pytest.raises(UserError, match="kd_convex: is none of its choices"):
        read_space(CONDITIONAL, "here")
    CONDITIONAL["distill.temperature"]["only_if"] = {"distill": "kd"}  # type: ignore[index]
    parameters = read_space(CONDITIONAL, "here")
    assert [p.key for p in parameters] == ["distill", "distill.temperature", "seed"]
    keys = [p.key for p in parameters]
    temperature, seed = parameters[1:]
    assert is_active(temperature, keys, {}, {"distill": "kd"})
    assert not is_active(temperature, keys, {}, {"distill": "none"})
    assert not is_active(temperature, keys, {"distill": "kd"}, {})  # left alone itself
    assert is_active(seed, keys, {"algorithm": "maml"}, {})
    assert not is_active(seed, keys, {"algorithm": "anil"}, {})


def test_combinations_leave_out_what_a_condition_excludes() -> None:
    parameters = read_space(
        {
            "distill": {"choices": ["none", "kd"]},
            "distill.temperature": {"low": 1, "high": 2, "step": 1, "only_if": {"distill": "kd"}},
        },
        "here",
    )
    options = {p.key: p.domain.grid() or [] for p in parameters}
    assert list(combinations(parameters, {}, options)) == [
        {"distill": "none"},
        {"distill": "kd", "distill.temperature": 1.0},
        {"distill": "kd", "distill.temperature": 2.0},
    ]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (3, "expected {low"),
        ({"low": 1}, "high: expected a number"),
        ({"low": 1, "high": 2, "choices": [1]}, "either low and high, or choices"),
        ({}, "either low and high, or choices"),
        ({"lo": 1, "high": 2}, "Did you mean 'low'"),
        ({"low": 2, "high": 1}, "low=2 is not below high=1"),
        ({"low": "1", "high": 2}, "low: expected a number"),
        ({"low": 0, "high": 1, "log": True}, "must begin above 0"),
        ({"low": 1, "high": 2, "log": "yes"}, "true or false"),
        ({"low": 1, "high": 8, "log": True, "step": 1}, "are mutually exclusive"),
        ({"low": 0, "high": 1, "step": 0.3}, "high=1 is no multiple of step above low; 0.9 is"),
        ({"low": 0, "high": 1, "step": 0}, "above 0"),
        ({"choices": []}, "expected a list"),
        ({"choices": "ab"}, "expected a list"),
        ({"choices": [1, 2, 1]}, "1 stands there twice"),
        ({"choices": [1], "log": True}, "goes with low and high"),
        ({"choices": [1], "only_if": "kd"}, "expected {SETTING: VALUE}"),
        ({"choices": [1], "only_if": {"meta_train.lr": 1}}, "depend on one another"),
        ({"low": 1, "high": 2, "only_if": {"range": 1}}, "needs one that has choices"),
    ],
)
def test_refused(entry: Any, said: str) -> None:
    space = {"meta_train.lr": entry, "range": {"low": 0, "high": 1}}
    with pytest.raises(UserError, match=said.replace("{", r"\{")) as caught:
        read_space(space, "file.yaml")
    assert str(caught.value).startswith("file.yaml: space: ")
    assert "\n" not in str(caught.value)


def test_fractions_of_a_whole_setting_are_refused() -> None:
    with pytest.raises(UserError, match="must have integers"):
        read_space({"student.width": {"low": 4, "high": 8.5}}, "here")
