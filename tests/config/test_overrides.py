"""Text settings hold the text that was typed, whatever Hydra's grammar would make of it."""

from __future__ import annotations

from typing import Any

import pytest

from metakd.config.checks import check
from metakd.config.compose import compose
from metakd.errors import UserError
from metakd.sweeps.plan import combinations, composed_jobs


def value(typed: str, key: str) -> Any:
    found: Any = compose([typed]).config
    for part in key.split("."):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize("text", ["2026_11_28", "1e3", "007", "1.50", "true", "inf", "-3", "0x1f"])
@pytest.mark.parametrize("key", ["name", "tracker.project", "tracker.group", "student.model"])
def test_it_stays_as_it_was_typed(key: str, text: str) -> None:
    assert value(f"{key}={text}", key) == text


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("[2026_11_28,1e3]", ["2026_11_28", "1e3"]),
        ("[a, 1, 'b,2', true]", ["a", "1", "b,2", "true"]),
        ("[]", []),
        ("[1]", ["1"]),
    ],
)
def test_words_of_a_list_stay(typed: str, words: list[str]) -> None:
    assert value(f"tags={typed}", "tags") == words


def test_null_and_references_and_numbers_are_what_they_were() -> None:
    assert value("tracker.group=null", "tracker.group") is None
    assert value("name=run_${seed}", "name") == "run_0"
    assert value("name='1e3'", "name") == "1e3"
    assert value("meta_train.lr=1e-2", "meta_train.lr") == 0.01
    assert value("evaluate.shots=[1,5]", "evaluate.shots") == [1, 5]
    assert value("dataset.folder=2026_11_28", "dataset.folder") == "2026_11_28"


def test_several_values_of_a_multirun_stay() -> None:
    jobs, own = combinations(["name=1e3,2026_11_28", "tags=[1_0],[x]"])
    found = [(c.config.name, c.config.tags) for c in composed_jobs(jobs, own, None)]
    assert found == [(n, t) for n in ("1e3", "2026_11_28") for t in (["1_0"], ["x"])]


@pytest.mark.parametrize("seed", [2**64, 2**63, -(2**63) - 1])
@pytest.mark.parametrize("key", ["seed", "teacher.seed", "evaluate.seed", "dataset.split_seed"])
def test_a_seed_has_a_range(key: str, seed: int) -> None:
    with pytest.raises(UserError, match=r"expected from -2\^63 to 2\^63 - 1") as error:
        check(compose([f"{key}={seed}"]).config)
    assert "\n" not in str(error.value)
