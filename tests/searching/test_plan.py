"""From what is typed to a search: which settings are searched, what is refused, what is tried."""

from __future__ import annotations

import json
from typing import Any

import pytest

from metakd.errors import UserError
from metakd.runs.records_sweep import SearchRecord
from metakd.searching.corners import MOST, check_space, corners, grid
from metakd.searching.plan import Search, plan, replan
from metakd.sweeps.recipe import Recipe

SPACE: dict[str, Any] = {
    "meta_train.lr": {"low": 1e-4, "high": 1e-2, "log": True},
    "distill": {"choices": ["none", "kd"]},
    "distill.temperature": {"low": 1, "high": 4, "only_if": {"distill": "kd"}},
}


def planned(*words: str, space: Any = None, **search: Any) -> Search:
    recipe = Recipe("mine", {"tracker": "none"}, {}, search, SPACE if space is None else space)
    return plan(recipe, words, None)


def checked(*words: str, space: Any = None) -> None:
    check_space(planned(*words, space=space), None)


def keys(search: Search) -> list[str]:
    return [p.key for p in search.parameters]


def test_trials_are_evaluated_on_validation_classes() -> None:
    search = planned("seed=3")
    assert search.trial_words({"distill": "kd", "distill.temperature": 2.5}) == [
        "tracker=none", "seed=3", "evaluate.part=validate", "distill=kd", "distill.temperature=2.5",
    ]  # fmt: skip
    assert search.base.config.evaluate.part == "validate"
    assert planned("evaluate.part=validate").words.count("evaluate.part=validate") == 1
    with pytest.raises(UserError, match="test classes stay unseen"):
        planned("evaluate.part=test")


def test_one_value_fixes_a_setting() -> None:
    assert keys(planned("meta_train.lr=0.01")) == ["distill", "distill.temperature"]
    fixed = planned("distill=kd")
    assert keys(fixed) == ["meta_train.lr", "distill.temperature"]
    assert fixed.fixed == {"distill": "kd"}
    none = planned("distill=none")
    assert keys(none) == ["meta_train.lr"]
    assert "distill.temperature is not searched, since distill is none" in none.notes[0]


def test_of_what_is_typed_twice_the_last_counts() -> None:
    search = planned("student.width=4", "student.width=4,8", "seed=1", "seed=2")
    assert "student.width" in [p.key for p in search.parameters]
    assert [w for w in search.words if w.startswith(("student.width", "seed"))] == ["seed=2"]
    search = planned("student.width=4,8", "student.width=4")
    assert "student.width" not in [p.key for p in search.parameters]


def test_several_values_make_a_parameter() -> None:
    search = planned(
        "distill=kd,embedding",
        "student.width=range(8,25,8)",
        "meta_train.lr=interval(0.1,0.2)",
        "student.widths=[4,8],[8,8]",
        "warmstart.lr=tag(log,interval(1e-4,1e-2))",
        "distill.temperature=2,3",
    )
    assert search.space == {
        "meta_train.lr": {"low": 0.1, "high": 0.2},
        "distill": {"choices": ["kd", "embedding"]},
        "distill.temperature": {"choices": [2, 3], "only_if": {"distill": "kd"}},
        "student.width": {"choices": [8, 16, 24]},
        "student.widths": {"choices": [[4, 8], [8, 8]]},
        "warmstart.lr": {"low": 1e-4, "high": 1e-2, "log": True},
    }
    assert search.trial_words({"student.widths": "[4,8]"})[-1] == "student.widths=[4,8]"


def test_what_is_recorded_is_the_same_search_again() -> None:
    search = planned("sweep.trials=7", "student.widths=[4,8],[8,8]")
    # As sweep.json holds it.
    record = SearchRecord.model_validate(json.loads(json.dumps(search.record().model_dump())))
    again = replan(record, (), None)
    assert again.parameters == search.parameters
    assert list(again.words) == list(search.words)
    assert again.settings == search.settings
    assert json.loads(json.dumps(again.record().model_dump())) == record.model_dump()
    assert replan(record, ["sweep.trials=9"], None).settings.trials == 9
    with pytest.raises(UserError):
        replan(record.model_copy(update={"settings": {"trials": "x"}}), (), None)


@pytest.mark.parametrize(
    "key", ["seed", "evaluate.seed", "task.shots", "dataset", "tracker.mode", "name", "experiment"]
)
def test_what_decides_the_tasks_is_no_parameter(key: str) -> None:
    with pytest.raises(UserError, match=f"^{key}: cannot be searched"):
        planned(space={key: {"choices": [0, 1]}})


def test_objectives_fit_the_data() -> None:
    with pytest.raises(UserError, match="type mse in place of accuracy"):
        planned("dataset=sinusoid", "algorithm=maml", "distill=none", "teacher=mlp", "student=mlp")


def test_nothing_left_to_search() -> None:
    with pytest.raises(UserError, match="no parameter is left to search"):
        planned("meta_train.lr=0.1", "distill=none")


def test_conditions_on_settings_that_nobody_searches() -> None:
    entry = {"choices": [1, 2]}
    space = {"algorithm.inner_steps": {**entry, "only_if": {"algorithm": ["maml", "anil"]}}}
    assert keys(planned("algorithm=maml", space=space)) == ["algorithm.inner_steps"]
    space = {"student.width": {**entry, "only_if": {"student.strided": True}}}
    assert keys(planned("student.strided=true", space=space)) == ["student.width"]
    with pytest.raises(UserError, match=r"Did you mean 'student\.strided'"):
        planned(space={"student.width": {**entry, "only_if": {"student.stridet": True}}})
    with pytest.raises(UserError, match=r"name that, like \{algorithm: CHOICE\}"):
        planned(
            space={
                "algorithm": {"choices": ["maml", "protonet"]},
                "algorithm.inner_steps": {**entry, "only_if": {"algorithm.supports.adapts": True}},
            }
        )


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"meta_train.lrr": {"low": 1, "high": 2}}, "Did you mean 'meta_train.lr'"),
        ({"meta_train.lr": {"low": -1, "high": 2}}, "meta_train.lr=-1.0: expected above 0"),
        ({"distill": {"choices": ["kd", "kdd"]}}, "Did you mean 'kd'"),
        ({"student.width": {"choices": [8, "wide"]}}, "expected a whole number"),
        ({"task.train_ways": {"low": 2, "high": 5000}}, "task.train_ways=5000"),
        ({"finetune.lr": {"low": 1, "high": 2}}, "finetune.lr changes nothing"),
        (
            {"distill": {"choices": ["relational"]}, "distill.temperature": {"low": 1, "high": 4}},
            "distill.temperature changes nothing: the loss asks for no logits",
        ),
        (
            {"distill": {"choices": ["hints"]}, "distill.temperature": {"low": 1, "high": 4}},
            "distill.temperature changes nothing: the loss asks for no logits",
        ),
        # impossible only together
        (
            {
                "algorithm": {"choices": ["protonet", "maml"]},
                "task.train_ways": {"choices": [5, 10]},
            },
            "algorithm=maml has a head of fixed size",
        ),
    ],
)
def test_the_ends_of_the_space_are_composed(space: Any, said: str) -> None:
    with pytest.raises(UserError) as caught:
        checked(space=space)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_good_space() -> None:
    checked()


def test_a_temperature_that_some_trials_use_is_searched() -> None:
    temperature = {"distill.temperature": {"low": 1, "high": 4}}
    checked(space={"distill": {"choices": ["relational", "kd"]}, **temperature})
    weight = {"distill.kd_weight": {"choices": [0.0, 1.0]}}
    checked(space={"distill": {"choices": ["embedding"]}, **weight, **temperature})


def test_large_spaces_are_tried_at_each_end() -> None:
    space = {f"meta_train.{k}": {"low": 1, "high": 2} for k in ("lr", "weight_decay", "clip")}
    space |= {
        "distill": {"choices": ["none", "kd", "embedding", "kd_convex"]},
        "distill.temperature": {"low": 1, "high": 4, "only_if": {"distill": "kd"}},
        "student.width": {"choices": [8, 16, 32, 64]},
    }
    search = planned(space=space)
    tried = corners(search)
    assert len(tried) <= MOST
    for parameter in search.parameters:
        for end in parameter.domain.ends():
            found = [one for one in tried if one.get(parameter.key) == end]
            rest = [{k: v for k, v in one.items() if k != parameter.key} for one in found]
            assert len(rest) > 1, (parameter.key, end)  # with others low and high


def test_a_grid_needs_steps() -> None:
    with pytest.raises(UserError, match=r"meta_train\.lr: sweep\.sampler=grid needs"):
        grid(planned())
    assert len(list(grid(planned("meta_train.lr=1,2", "distill.temperature=3")))) == 4
