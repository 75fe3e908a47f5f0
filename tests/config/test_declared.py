"""What the schema declares of a setting, and who reads it."""

from __future__ import annotations

import omegaconf
import pytest

from metakd.config.declared import (
    decides_evaluation,
    declaration,
    declarations,
    is_bookkeeping,
    is_fact,
    known_groups,
    known_settings,
)
from metakd.config.paths import PATH_KEYS
from metakd.config.recorded import FREE
from metakd.config.schema import Setting
from metakd.config.schema.field import MISSING
from metakd.errors import UserError, check_word

BOOKKEEPING = {
    *("plugins", "data_root", "cache_root", "tags", "tracker", "checkpoint_minutes"),
    *("checkpoint_steps", "student_alone_cache", "pretrain.cache"),
}
PATHS = {
    *("data_root", "cache_root", "output_root", "dataset.folder", "dataset.splits"),
    *("teacher.checkpoint", "student.checkpoint", "warmstart.unlabelled"),
    *("resume", "hydra.run.dir", "hydra.sweep.dir"),
}


def test_what_makes_no_other_run() -> None:
    names = {*known_settings(), *known_groups()}
    found = {key for key in names if is_bookkeeping(key) and not key.startswith("tracker.")}
    assert found == BOOKKEEPING
    assert is_bookkeeping("tracker.mode")
    assert not is_bookkeeping("of_another_version")


def test_paths_and_what_a_repetition_may_change() -> None:
    assert PATH_KEYS == PATHS
    own = {"output_root", "name", "device", "precision", "deterministic", "dataset.in_memory"}
    # Whether its teacher comes from the cache is said by an option, not by pretrain.cache.
    paths = {*(PATHS & known_settings().keys()), "teacher.further_checkpoints"}
    free = {*BOOKKEEPING, *own, *paths} - {"pretrain.cache"}
    assert set(FREE) == free


def test_what_says_on_what_a_run_is_evaluated() -> None:
    evaluated = {
        key
        for key in known_settings()
        if decides_evaluation(key) and not key.startswith("evaluate")
    }
    assert evaluated == {
        *("seed", "task.whole", "task.ways", "task.shots", "task.queries", "dataset.supports.kind"),
        *("dataset.splits", "dataset.split_seed", "dataset.folder", "dataset.rotations"),
    }
    assert decides_evaluation("evaluate.steps")
    assert [group for group in known_groups() if decides_evaluation(group)] == [
        *("dataset", "task", "evaluate"),
    ]


def test_facts() -> None:
    assert is_fact("algorithm.supports.adapts")
    assert is_fact("dataset.supports.classes.train")
    assert is_fact("distill.needs.logits")
    assert is_fact("algorithm.supports.of_another_version")
    assert not is_fact("algorithm.inner_lr")
    assert not is_fact("seed")


@pytest.mark.parametrize(
    ("known", "good", "bad", "said"),
    [
        (Setting(least=1), [1, 2.5, [1, 7]], [0, [3, 0]], "x.y=0: expected at least 1"),
        (Setting(above=0), [0.1], [0], "x.y=0: expected above 0"),
        (Setting(least=0, below=1), [0, 0.9], [1], "x.y=1: expected from 0 to below 1"),
        (Setting(least=1, most=4), [1, 4], [5], "x.y=5: expected from 1 to 4"),
        (Setting(), [None, -3, "a", True], [float("nan")], "x.y=nan: expected a finite number"),
        (
            Setting(words=("sgd", "adam")),
            ["sgd", ["sgd", "adam"], None],
            ["adamm"],
            "x.y=adamm: expected one of sgd, adam. Did you mean 'adam'?",
        ),
    ],
)
def test_values(known: Setting, good: list[object], bad: list[object], said: str) -> None:
    for value in good:
        known.check(value, "x.y")
    for value in bad:
        with pytest.raises(UserError) as error:
            known.check(value, "x.y")
        assert str(error.value) == said


def test_a_seed_and_inherited_settings() -> None:
    seed = declaration("evaluate.seed")
    assert seed.range == "from -2^63 to 2^63 - 1"
    assert (seed.holds(2**63 - 1), seed.holds(2**63)) == (True, False)
    assert {declarations()[f"{stage}.lr"] for stage in ("pretrain", "finetune")} == {
        Setting(above=0)
    }


def test_a_word_that_is_none_of_some() -> None:
    check_word("algorithm.options.score", "vote", ("summed", "vote"))
    with pytest.raises(UserError) as error:
        check_word("algorithm.options.score", "sumed", ("summed", "vote"))
    assert str(error.value) == (
        "algorithm.options.score=sumed: expected one of summed, vote. Did you mean 'summed'?"
    )


def test_the_mark_of_a_missing_value_is_omegaconfs() -> None:
    assert MISSING == omegaconf.MISSING
