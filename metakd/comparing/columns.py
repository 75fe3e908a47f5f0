"""Settings that differ between runs, and groups of runs that differ only in the seed."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

from metakd.comparing.gather import Run
from metakd.comparing.usual import of_choice
from metakd.config.declared import declaration, is_bookkeeping, is_fact

__all__ = ["differing", "groups", "is_off", "settings_of"]

CHOICES = ("dataset", "teacher", "student", "algorithm", "distill")
"""Groups whose choice is a column; in others it only names a set of values."""

SWITCHES = {"distill": "distill.supports.uses_teacher"}
"""What switches a group off, where it is not `enabled`."""

ABSENT = object()


def differing(runs: Sequence[Run]) -> dict[str, str]:
    """Return the settings in which `runs` differ, by dotted name, and what a column calls them.

    A group's choice is called by the group (`algorithm`). A setting that each run has as its choice
    has it by itself is left out where the choices differ: the choice says it. So is one in which
    only runs differ that do not use it, because its stage is off. Runs whose settings are not known
    are passed over.

    Args:
        runs: at least one.
    """
    known = [run.settings for run in runs if run.settings]
    keys = dict.fromkeys(key for settings in known for key in settings if _is_setting(key))
    found: dict[str, str] = {}
    for key in keys:
        if len({_word(s.get(key, ABSENT)) for s in known if not is_off(s, key)}) <= 1:
            continue
        group, _, rest = key.partition(".")
        if rest == "name":
            if group in CHOICES:
                found[key] = group
        elif not _follows_from_choice(group, key, known):
            found[key] = key
    return found


def settings_of(run: Run, keys: Mapping[str, str]) -> dict[str, Any]:
    """Return a run's values of `keys` by what a column calls them; what it lacks is left out."""
    return {name: run.settings[key] for key, name in keys.items() if key in run.settings}


def is_off(settings: Mapping[str, Any], key: str) -> bool:
    """Tell whether a setting has no effect in a run, because its stage is off.

    Args:
        settings: of the run.
        key: dotted name of the setting.
    """
    group, _, rest = key.partition(".")
    switch = SWITCHES.get(group, f"{group}.enabled")
    return key != switch and rest != "name" and settings.get(switch) is False


def groups(runs: Iterable[Run], apart: Mapping[Run, Hashable]) -> list[tuple[Run, ...]]:
    """Group runs that differ only in the seed, in the order of the seeds.

    Runs of one name and seed that differ in nothing at all (the same command twice) are no two
    seeds: the second one begins another group.

    Args:
        runs: finished ones.
        apart: what else has to be the same, e.g. the evaluation tasks.
    """
    found: dict[Hashable, list[Run]] = {}
    times: dict[Hashable, int] = {}
    for run in runs:
        rest = {k: v for k, v in run.settings.items() if k == "name" or _is_setting(k)}
        same = (_word(rest), apart[run], run.is_evaluation, run.members)
        nth = times[(same, run.seed)] = times.get((same, run.seed), 0) + 1
        # Without a recorded seed two runs may be the same one.
        found.setdefault((same, nth, run if run.seed is None else None), []).append(run)
    return [tuple(sorted(group, key=lambda r: r.seed or 0)) for group in found.values()]


def _is_setting(key: str) -> bool:
    decides = declaration(key).decides
    return not (key == "seed" or decides == "folder" or is_bookkeeping(key) or is_fact(key))


def _follows_from_choice(group: str, key: str, known: Sequence[Mapping[str, Any]]) -> bool:
    """Tell whether the group's choices differ and every run has what its choice brings along."""
    if group not in CHOICES or key == group:
        return False
    names = [s.get(f"{group}.name") for s in known]
    if len({_word(n) for n in names}) == 1:
        return False
    if key == f"{group}._target_":  # also of somebody's own choices, and of other versions
        return len({_word(n) for n in names}) == len(
            {(_word(n), _word(s.get(key, ABSENT))) for n, s in zip(names, known, strict=True)}
        )
    return all(
        _word(s.get(key, ABSENT)) == _word(of_choice(group, str(name)).get(key, ABSENT))
        for s, name in zip(known, names, strict=True)
    )


def _word(value: Any) -> str:
    """Return text that is equal for equal values: 1 and 1.0 are equal, 1 and True are not."""
    if value is ABSENT:
        return "absent"
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    return json.dumps(value, sort_keys=True, default=repr)
