"""Trials with the settings of an earlier one: they would give the same result and are not run.

Training is deterministic. Samplers do not know that, and with few combinations left, or one that
is much the best, they suggest the same again and again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from metakd.searching.space import MOST, Parameter, Value, Values, combinations

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

__all__ = ["earlier", "every_combination", "is_repeated", "key_of", "tell_again"]

REPEATS = "repeats"
"""User attribute of a trial that was not run: the number of the trial that it repeats."""


def key_of(values: Values) -> tuple[tuple[str, str], ...]:
    """Return a key that is equal for equal overrides."""
    return tuple(
        sorted((k, f"{v:.12g}" if isinstance(v, float) else repr(v)) for k, v in values.items())
    )


def every_combination(
    parameters: Sequence[Parameter], fixed: Mapping[str, Value]
) -> list[dict[str, Value]] | None:
    """Return every combination of a space; None if there are infinitely or very many."""
    options = {p.key: p.domain.grid() for p in parameters}
    known = {key: values for key, values in options.items() if values is not None}
    if len(known) < len(options):
        return None
    found = list(islice(combinations(parameters, fixed, known), MOST + 1))
    return found if len(found) <= MOST else None


def is_repeated(trial: FrozenTrial) -> bool:
    """Tell whether a trial was not run, since an earlier one had its settings."""
    return REPEATS in trial.user_attrs


def earlier(study: optuna.Study, number: int, values: Values) -> FrozenTrial | None:
    """Return the first trial before `number` that has these settings, if there is one."""
    wanted = key_of(values)
    trials = study.get_trials(deepcopy=False)[:number]
    return next((t for t in trials if key_of(t.params) == wanted), None)


def tell_again(study: optuna.Study, trial: optuna.Trial, before: FrozenTrial) -> None:
    """Tell Optuna the earlier result for `trial`, which is not run.

    If the earlier trial is not finished, the sampler learns nothing from it.
    """
    from optuna.trial import TrialState

    trial.set_user_attr(REPEATS, before.number)
    states = (TrialState.COMPLETE, TrialState.PRUNED)
    state = before.state if before.state in states else TrialState.FAIL
    complete = state == TrialState.COMPLETE
    study.tell(trial.number, list(before.values) if complete else None, state=state)
