"""Optuna asked and told, with made-up objectives and no processes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from metakd.errors import UserError
from metakd.searching.journal import JOURNAL
from metakd.searching.outcome import tried_of
from metakd.searching.settings import read_settings
from metakd.searching.space import combinations, read_space
from metakd.searching.study import Budget, Trials
from metakd.sweeps.state import Sweep

pytest.importorskip("optuna")

RATE = {"meta_train.lr": {"low": 1e-4, "high": 1.0, "log": True}}
CONDITIONAL = {
    "distill": {"choices": ["none", "kd"]},
    "distill.temperature": {"low": 1, "high": 4, "step": 1, "only_if": {"distill": "kd"}},
}


def trials_of(
    folder: Path, space: Mapping[str, Any] = RATE, grid: bool = False, **settings: Any
) -> Trials:
    parameters = read_space(space, "here")
    every = None
    if grid:
        options = {p.key: p.domain.grid() or [] for p in parameters}
        every = combinations(parameters, {}, options)
    return Trials(folder, parameters, {}, read_settings(settings), Budget(10, 80), every)


def peak(values: Mapping[str, Any]) -> float:
    """Best (0) at a rate of 0.01."""
    return -((math.log10(values["meta_train.lr"]) + 2) ** 2)


def searched(
    trials: Trials, objective: Callable[[Mapping[str, Any]], float] = peak
) -> list[dict[str, Any]]:
    found = []
    while (asked := trials.ask()) is not None:
        number, values = asked
        assert number >= len(found)
        trials.tell(number, [objective(values)])
        found.append(values)
    return found


def late(values: Sequence[Mapping[str, Any]]) -> float:
    """Return how good the last half of the trials are, in the mean."""
    half = values[len(values) // 2 :]
    return sum(map(peak, half)) / len(half)


def test_samplers_learn_and_random_does_not(tmp_path: Path) -> None:
    how_good = {}
    for sampler in ("tpe", "gp", "random"):
        folder = tmp_path / sampler
        folder.mkdir()
        values = searched(trials_of(folder, sampler=sampler, trials=14, startup=4))
        assert len(values) == 14
        assert all(1e-4 <= v["meta_train.lr"] <= 1 for v in values)
        how_good[sampler] = late(values)
    assert how_good["tpe"] > how_good["random"] + 0.3
    assert how_good["gp"] > how_good["random"] + 0.3


def test_startup_and_seed(tmp_path: Path) -> None:
    found = {}
    for name, more in {
        "random": {"sampler": "random"},
        "late": {"startup": 100},
        "early": {"startup": 1},
        "other": {"startup": 1, "seed": 1},
        "again": {"startup": 1},
    }.items():
        (tmp_path / name).mkdir()
        found[name] = searched(trials_of(tmp_path / name, trials=6, **more))
    assert found["late"] == found["random"]
    assert found["early"] != found["late"]
    assert found["again"] == found["early"]
    assert found["other"][0] != found["early"][0]


@pytest.mark.parametrize("sampler", ["tpe", "gp", "random"])
def test_a_search_that_is_opened_again_asks_the_same(tmp_path: Path, sampler: str) -> None:
    for name in ("whole", "torn"):
        (tmp_path / name).mkdir()
    space = {**RATE, **CONDITIONAL}
    whole = searched(trials_of(tmp_path / "whole", space, sampler=sampler, trials=6, startup=3))
    torn = []
    for number in range(6):
        trials = trials_of(tmp_path / "torn", space, sampler=sampler, trials=6, startup=3)
        asked = trials.ask()
        assert asked is not None
        assert asked[0] == number
        again = trials_of(tmp_path / "torn", space, sampler=sampler, trials=6, startup=3)
        assert again.open_trials() == {number: asked[1]}
        again.tell(number, [peak(asked[1])])
        torn.append(asked[1])
    assert torn == whole


def test_a_trial_killed_before_its_values_were_drawn(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "torn").mkdir()
    expected = trials_of(tmp_path / "whole").ask()
    trials_of(tmp_path / "torn").study.ask()
    again = trials_of(tmp_path / "torn")
    assert expected is not None
    assert again.open_trials() == {0: expected[1]}
    assert again.ask()[0] == 1  # type: ignore[index]


def test_conditional_values_are_drawn_only_then(tmp_path: Path) -> None:
    def good(values: Mapping[str, Any]) -> float:
        return float(values.get("distill.temperature", 0))

    values = searched(trials_of(tmp_path, CONDITIONAL, trials=20, startup=5), good)
    assert len(values) == 5  # there are no others
    assert {v["distill"] for v in values} == {"none", "kd"}
    for one in values:
        assert ("distill.temperature" in one) == (one["distill"] == "kd")
    assert {v["distill.temperature"] for v in values if len(v) > 1} <= {1.0, 2.0, 3.0, 4.0}


def test_a_grid_is_every_combination_once(tmp_path: Path) -> None:
    trials = trials_of(tmp_path, CONDITIONAL, grid=True, sampler="grid")
    assert trials.most == 5
    first = trials.ask()
    assert first == (0, {"distill": "none"})
    again = trials_of(tmp_path, CONDITIONAL, grid=True, sampler="grid")
    assert again.open_trials() == {0: {"distill": "none"}}
    rest = [again.ask() for _ in range(5)]
    assert rest[-1] is None
    assert [r[1].get("distill.temperature") for r in rest[:-1] if r] == [1.0, 2.0, 3.0, 4.0]


def test_a_grid_can_be_cut_short(tmp_path: Path) -> None:
    trials = trials_of(tmp_path, CONDITIONAL, grid=True, sampler="grid", trials=2)
    assert len(searched(trials, lambda v: 0.0)) == 2


@pytest.mark.parametrize("sampler", ["tpe", "gp", "random"])
def test_nothing_is_tried_twice(tmp_path: Path, sampler: str) -> None:
    """Until all combinations are done; what is suggested again is told again."""
    space = {**CONDITIONAL, "student.width": {"low": 4, "high": 8, "step": 2}}

    def good(values: Mapping[str, Any]) -> float:
        return float(values["student.width"] + values.get("distill.temperature", 0))

    trials = trials_of(tmp_path, space, sampler=sampler, trials=40, startup=3)
    assert trials.most == 15
    values = searched(trials, good)
    assert len(values) == 15
    assert len({tuple(sorted(v.items())) for v in values}) == 15
    told = trials.study.trials
    assert len(told) == 15 + trials.repeated()
    assert all(t.value == good(t.params) for t in told)
    said = " ".join(trials.remarks())
    assert "the space has 15 combinations; sweep.trials=40" in said
    assert (f"{trials.repeated()} suggestions repeated" in said) == (trials.repeated() > 0)
    tried = tried_of(Sweep(tmp_path, []), trials.study)
    assert len({tuple(sorted(t.params.items())) for t in tried}) == len(tried) == 15


def test_repetitions_do_not_count(tmp_path: Path) -> None:
    """Of two choices one leaves nothing to choose; many suggestions are alike."""
    space = {
        "distill": {"choices": ["none", "kd"]},
        "distill.temperature": {"low": 1.0, "high": 4.0, "only_if": {"distill": "kd"}},
    }
    trials = trials_of(tmp_path, space, sampler="tpe", trials=8, startup=2, seed=1)
    values = searched(trials, lambda v: float("distill.temperature" not in v))
    assert len(values) == 8
    assert sum(v == {"distill": "none"} for v in values) == 1
    repeated = [t for t in trials.study.trials if "repeats" in t.user_attrs]
    assert len(repeated) == trials.repeated() > 0
    assert {(t.params["distill"], t.value) for t in repeated} == {("none", 1.0)}
    assert trials.remarks()[0].startswith(f"{len(repeated)} suggestions repeated")
    again = trials_of(tmp_path, space, sampler="tpe", trials=8, startup=2, seed=1)
    assert again.ask() is None


def test_what_runs_is_not_started_again(tmp_path: Path) -> None:
    space = {"student.width": {"choices": [4, 8, 16]}}
    trials = trials_of(tmp_path, space, sampler="random", trials=9)
    asked = [trials.ask() for _ in range(4)]
    assert asked[3] is None
    assert {a[1]["student.width"] for a in asked[:3] if a} == {4, 8, 16}
    for one in asked[:3]:
        assert one is not None
        trials.tell(one[0], [0.5])
    assert trials.ask() is None


def test_killed_before_it_was_left_out(tmp_path: Path) -> None:
    space = {"student.width": {"choices": [4]}}
    trials = trials_of(tmp_path, space, trials=3)
    assert trials.ask() == (0, {"student.width": 4})
    trials.tell(0, [0.5])
    trials.study.ask()  # whoever asked was killed then
    again = trials_of(tmp_path, space, trials=3)
    assert again.open_trials() == {}
    assert (again.study.trials[1].value, again.repeated()) == (0.5, 1)
    # One that an older version has started is gone on with.
    trials.study.ask()
    assert trials_of(tmp_path, space, trials=3).open_trials([2]) == {2: {"student.width": 4}}


def validated(trials: Trials, curve: Callable[[int], float]) -> int | None:
    """Run a trial whose validations are `curve`; return when it was found hopeless, if so."""
    asked = trials.ask()
    assert asked is not None
    for done in range(10, 90, 10):
        if trials.report(asked[0], done, curve(done)):
            trials.tell(asked[0], None)
            return done
    trials.tell(asked[0], [curve(80)])
    return None


def good(done: int) -> float:
    return 0.5 + done / 1000


def bad(done: int) -> float:
    return 0.2


def test_median_ends_what_is_worse_than_the_others(tmp_path: Path) -> None:
    trials = trials_of(tmp_path, pruner="median", prune_after=3)
    assert [validated(trials, good) for _ in range(2)] == [None] * 2
    assert validated(trials, bad) is None  # two are complete, three are asked for
    assert validated(trials, bad) == 10
    assert validated(trials, good) is None
    states = [t.state.name for t in trials.study.trials]
    assert states == ["COMPLETE", "COMPLETE", "COMPLETE", "PRUNED", "COMPLETE"]
    assert trials.was_hopeless(3) == 10
    assert trials.was_hopeless(4) is None


def test_errors_are_better_if_smaller(tmp_path: Path) -> None:
    trials = trials_of(tmp_path, pruner="median", prune_after=1, objectives=["mse"])
    assert validated(trials, bad) is None
    assert validated(trials, good) == 10


@pytest.mark.parametrize("pruner", ["median", "halving", "hyperband"])
def test_pruners_spare_the_first_iterations(tmp_path: Path, pruner: str) -> None:
    ended = {}
    for begin in (0, 40):
        (tmp_path / str(begin)).mkdir()
        trials = trials_of(tmp_path / str(begin), pruner=pruner, prune_after=1, prune_from=begin)
        for _ in range(6):
            validated(trials, good)
        ended[begin] = [validated(trials, bad) for _ in range(4)]
    early = [done for done in ended[0] if done is not None]
    spared = [done for done in ended[40] if done is not None]
    assert early
    assert min(early) < 40
    assert spared
    assert min(spared) >= 40


def test_none_ends_nothing(tmp_path: Path) -> None:
    trials = trials_of(tmp_path, pruner="none", prune_after=1)
    for curve in (good, good, good, bad, bad):
        assert validated(trials, curve) is None


def test_several_objectives(tmp_path: Path) -> None:
    trials = trials_of(tmp_path, objectives=["accuracy", "parameters"], trials=3)
    for values in ([0.5, 100.0], [0.6, 200.0], [0.4, 300.0]):
        number, _ = trials.ask()  # type: ignore[misc]
        trials.tell(number, values)
    assert trials.ask() is None
    assert sorted(t.number for t in trials.study.best_trials) == [0, 1]


def test_what_is_told_stays(tmp_path: Path) -> None:
    trials = trials_of(tmp_path, trials=2)
    for _ in range(2):
        trials.ask()
    trials.tell(0, [0.5])
    trials.tell(0, [0.7])
    trials.tell(1, None)
    assert trials.study.trials[0].value == 0.5
    assert trials.study.trials[1].state.name == "FAIL"
    assert not trials.is_open(0)
    assert trials.knows(1)
    assert not trials.knows(2)


def test_a_search_can_be_made_longer(tmp_path: Path) -> None:
    assert len(searched(trials_of(tmp_path, trials=2))) == 2
    longer = trials_of(tmp_path, trials=3)
    assert longer.ask()[0] == 2  # type: ignore[index]


def test_half_a_line_and_a_lock_of_a_killed_process(tmp_path: Path) -> None:
    before = trials_of(tmp_path, trials=2).ask()
    journal = tmp_path / JOURNAL
    whole = journal.read_bytes()
    with journal.open("ab") as file:
        file.write(b'{"op_code":5,"wor')
    (tmp_path / f"{JOURNAL}.lock").symlink_to(journal)
    again = trials_of(tmp_path, trials=2)
    assert before is not None
    assert again.open_trials() == {0: before[1]}
    assert journal.read_bytes().startswith(whole)
    again.tell(0, [1.0])
    assert trials_of(tmp_path, trials=2).study.trials[0].value == 1.0


@pytest.mark.parametrize("damage", [b"nonsense\n", b'{"op_code":5}\n', b"[]\n"])
def test_a_damaged_journal_is_one_line(tmp_path: Path, damage: bytes) -> None:
    trials_of(tmp_path).ask()
    journal = tmp_path / JOURNAL
    journal.write_bytes(damage + journal.read_bytes())
    with pytest.raises(UserError, match=r"cannot be read.*resume=") as caught:
        trials_of(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_journal_of_another_search(tmp_path: Path) -> None:
    trials_of(tmp_path)
    with pytest.raises(UserError, match="its objectives are accuracy"):
        trials_of(tmp_path, objectives=["accuracy", "macs"])


def test_a_journal_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be written"):
        trials_of(tmp_path / "nowhere")
