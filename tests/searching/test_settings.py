"""`sweep.KEY=VALUE`: from a file and as typed, checked, and what `auto` stands for."""

from __future__ import annotations

import pytest

from metakd.errors import UserError
from metakd.searching.figures import LABELS
from metakd.searching.settings import DIRECTIONS, KNOWN, read_settings


def test_what_is_typed_wins() -> None:
    settings = read_settings({"trials": 7, "sampler": "gp"}, ["sweep.trials=3", "sweep.jobs=2"])
    assert (settings.trials, settings.sampler, settings.jobs) == (3, "gp", 2)
    typed = read_settings({}, ["sweep.objectives=[accuracy,macs]"])
    assert typed.objectives == ["accuracy", "macs"]


def test_defaults() -> None:
    assert read_settings({}).trials == 30
    assert read_settings({"sampler": "grid"}).trials is None
    assert read_settings({}).pruner == "median"
    assert read_settings({"objectives": ["mse"]}).pruner == "median"
    assert read_settings({"objectives": ["accuracy", "macs"]}).pruner == "none"
    assert read_settings({"objectives": ["macs"]}).pruner == "none"
    of_a_task = ["accuracy", "task_macs", "task_latency_ms"]
    assert read_settings({"objectives": of_a_task}).objectives == of_a_task
    assert [DIRECTIONS[name] for name in of_a_task] == ["maximize", "minimize", "minimize"]
    assert KNOWN["sweep.objectives"].words == tuple(LABELS)
    assert {name for name, way in DIRECTIONS.items() if way == "maximize"} == {"accuracy"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sweep.trial=3"], "Did you mean 'sweep.trials'"),
        (["sweep.trials=0"], "at least 1"),
        (["sweep.trials=many"], "expected a whole number or null"),
        (["sweep.sampler=tpee"], "Did you mean 'tpe'"),
        (["sweep.pruner=medium"], "Did you mean 'median'"),
        (["sweep.objectives=[acuracy]"], "Did you mean 'accuracy'"),
        (["sweep.objectives=[]"], "one or more different"),
        (["sweep.objectives=[macs,macs]"], "one or more different"),
        (["sweep.objectives=[accuracy,macs]", "sweep.pruner=median"], "one objective only"),
        (["sweep.objectives=[macs]", "sweep.pruner=median"], "not the objective"),
        (["sweep.jobs=0"], "from 1 to"),
        (["sweep.startup=0"], "at least 1"),
        (["sweep.seed=-1"], "at least 0"),
        (["sweep.prune_after=0"], "at least 1"),
        (["sweep.prune_from=-1"], "at least 0"),
    ],
)
def test_refused(words: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        read_settings({}, words)
    assert "\n" not in str(caught.value)


def test_a_file_s_mistakes_name_the_file() -> None:
    with pytest.raises(UserError, match=r"^file: search: sampler: sweep\.sampler=x: expected one"):
        read_settings({"sampler": "x"}, (), "file")
