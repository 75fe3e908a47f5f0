"""conf/sweep: ready multiruns and spaces, how their values become overrides, and their mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from metakd.cli.sweep import expanded
from metakd.config.locate import Choices
from metakd.config.overrides import parse
from metakd.errors import UserError
from metakd.sweeps.plan import combinations
from metakd.sweeps.recipe import chosen, read_recipe, shown, word


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "sweep").mkdir()
    return tmp_path


def write(own: Path, text: str, name: str = "mine") -> str:
    (own / "sweep" / f"{name}.yaml").write_text(text)
    return str(own)


@pytest.mark.parametrize(
    "value",
    ["kd", "a b", "it's", "a,b", "1", "true", "null", "", "é", "x=1", "a\\", "1e-3", "[a]"],
)
def test_text_stays_text(value: str) -> None:
    read = parse([word("name", value)])[0].value()
    assert str(read) == value
    assert not isinstance(read, bool | int | float | list)


@pytest.mark.parametrize(
    "value", [None, True, False, 3, 1e-05, 0.1, [1, 5], ["a b", None], {"a": 1}]
)
def test_other_values_are_what_they_were(value: Any) -> None:
    assert parse([word("x", value)])[0].value() == value


def test_paths_take_any_character() -> None:
    assert parse([word("data_root", "/a, b/é")])[0].value() == "/a, b/é"
    assert shown("data_root", "/a b").startswith("'")


def test_a_grid_becomes_combinations(own: Path) -> None:
    folder = write(
        own,
        "settings: {tracker: none, evaluate.shots: [1, 5]}\n"
        "grid: {seed: [0, 1], evaluate.steps: [[0], [0, 5]]}\n",
    )
    recipe, words = expanded(["sweep=mine", "name=x"], folder)
    assert recipe is None
    jobs, _ = combinations(words)
    assert len(jobs) == 4
    assert jobs[0] == [
        "tracker=none", "evaluate.shots=[1,5]", "seed=0", "evaluate.steps=[0]", "name=x",
    ]  # fmt: skip
    assert jobs[-1][2:4] == ["seed=1", "evaluate.steps=[0,5]"]


def test_what_is_typed_wins(own: Path) -> None:
    folder = write(own, "settings: {tracker: none, name: a}\ngrid: {seed: [0, 1], distill: [kd]}\n")
    _, words = expanded(["sweep=mine", "seed=5,6,7", "name=b", "sweep.jobs=2"], folder)
    assert words == ["tracker=none", "distill=kd", "seed=5,6,7", "name=b", "sweep.jobs=2"]
    assert len(combinations(words)[0]) == 3


def test_without_a_recipe_nothing_changes() -> None:
    for words in (["seed=0,1"], ["seed=0,1", "sweep=null"]):
        assert expanded(words) == (None, ["seed=0,1"])


def test_a_search_is_left_to_the_search(own: Path) -> None:
    folder = write(own, "search: {trials: 3}\nspace: {student.width: {choices: [4, 8]}}\n")
    recipe, words = expanded(["sweep=mine", "seed=5"], folder)
    assert recipe is not None
    assert recipe.space == {"student.width": {"choices": [4, 8]}}
    assert recipe.search == {"trials": 3}
    assert words == ["seed=5"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no settings"),
        ("[a]", "holds no settings"),
        ("gird: {seed: [1]}", "Did you mean 'grid'"),
        ("grid: [seed]", "grid: expected 'key: value' lines"),
        ("grid: {seed: 1}", "seed: expected a list"),
        ("grid: {seed: []}", "seed: expected a list"),
        ("grid: {seed: [1]}\nspace: {}", "both a grid and a space"),
        ("search: {trials: 3}", "no space to search"),
        ("a: [", "cannot be read"),
    ],
)
def test_refused(own: Path, text: str, said: str) -> None:
    folder = write(own, text)
    with pytest.raises(UserError, match=said) as caught:
        read_recipe("mine", folder)
    assert "mine.yaml" in str(caught.value)


def test_names_are_checked(own: Path) -> None:
    with pytest.raises(UserError, match="Did you mean 'seeds'"):
        chosen(["sweep=seed"], None)
    with pytest.raises(UserError, match="one sweep at a time"):
        chosen(["sweep=seeds,students"], None)
    with pytest.raises(UserError, match="one sweep at a time"):
        chosen(["sweep=seeds", "sweep=students"], None)


def test_every_file_shows_its_command() -> None:
    files = Choices().of("sweep")
    assert {"algorithms", "distillation", "seeds", "search", "pareto", "optuna"} <= files.keys()
    for name, file in files.items():
        first, second = file.read_text().splitlines()[:2]
        assert first.startswith("# ")
        assert second.startswith(f"# metakd train -m sweep={name}")
