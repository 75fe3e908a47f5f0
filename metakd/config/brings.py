"""What a choice brings along: choices and settings of other groups, without which it is not itself.

`algorithm=reptile` brings the outer optimiser that it is published with, `dataset=sinusoid` an
algorithm that can do regression. A choice's file says so under `brings`:

    brings:
      distill: kd                                     # a choice of another group
      meta_train: {optimizer: plain_sgd, lr: 1.0}     # settings of another group

What is typed and what an experiment says win over it, and it wins over conf/config.yaml. Settings
of a group that was chosen by name are not brought, and the first one of a group leads: where it is
decided otherwise (`meta_train.optimizer=adam`), those after it would not fit and are not brought.
A network's file is read so where it is the teacher: as a student it brings nothing.
A run records what became of it, not the word `brings`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metakd.config.declared import known_groups, known_settings
from metakd.config.locate import Choices, content_of
from metakd.config.renamed import renamed
from metakd.config.suggest import unknown_setting
from metakd.errors import UserError, nearest

__all__ = ["KEY", "Brought", "as_word", "as_words", "bringing", "brings_of", "described"]

KEY = "brings"


@dataclass
class Brought:
    """What the choices of a configuration bring.

    Attributes:
        choices: by group, the choice and who brings it (`algorithm=adversarial`).
        settings: by dotted name, the value and who brings it; in the order of the files.
    """

    choices: dict[str, tuple[str, str]] = field(default_factory=dict)
    settings: dict[str, tuple[Any, str]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.choices or self.settings)

    def without_followers(self, decided: Mapping[str, Any]) -> Brought:
        """Return what stays where the leading setting of a group has another value in the end.

        Args:
            decided: the values of the composed configuration, by dotted name.
        """
        beaten, seen = set(), set()
        for key, (value, by) in self.settings.items():
            bundle = (key.partition(".")[0], by)
            if bundle not in seen and decided.get(key) != value:
                beaten.add(bundle)
            seen.add(bundle)
        kept = {
            key: (value, by)
            for key, (value, by) in self.settings.items()
            if (key.partition(".")[0], by) not in beaten
        }
        return Brought(self.choices, kept)

    def layer(self) -> dict[str, dict[str, Any]]:
        """Return the settings as a configuration that can be merged."""
        found: dict[str, dict[str, Any]] = {}
        for key, (value, _) in self.settings.items():
            group, _, leaf = key.partition(".")
            found.setdefault(group, {})[leaf] = value
        return found


def brings_of(file: Path) -> dict[str, str | dict[str, Any]]:
    """Return what the file of a choice brings: by group a choice, or settings.

    Raises:
        UserError: it cannot be read, or brings something unknown.
    """
    content = content_of(file)
    brought = content.get(KEY) if isinstance(content, dict) else None
    if brought is None:
        return {}
    if not isinstance(brought, dict):
        raise UserError(f"{file}: {KEY}: expected lines like 'distill: kd'")
    brought, _ = renamed(brought)
    found: dict[str, str | dict[str, Any]] = {}
    for group, value in brought.items():
        if group not in known_groups():
            hint = nearest(str(group), known_groups())
            raise UserError(f"{file}: {KEY}: {group}: no such group.{hint}")
        if isinstance(value, dict):
            for leaf in value:
                if f"{group}.{leaf}" not in known_settings():
                    wrong = unknown_setting(f"{group}.{leaf}", "", known_groups())
                    raise UserError(f"{file}: {KEY}: {wrong}")
            found[str(group)] = {str(leaf): one for leaf, one in value.items()}
        elif isinstance(value, str):
            found[str(group)] = value
        else:
            raise UserError(f"{file}: {KEY}: {group}: expected a choice, or 'key: value' lines")
    return found


def bringing(picked: Mapping[str, str], decided: Iterable[str], choices: Choices) -> Brought:
    """Return what the picked choices bring, and what those bring that they bring.

    Args:
        picked: the choice of each group.
        decided: the groups whose choice was typed or made by an experiment.
        choices: the available choices.
    """
    found, named, now = Brought(), set(decided), dict(picked)
    todo = [group for group in known_groups() if group in now and group != "student"]
    while todo:
        group = todo.pop(0)
        by = f"{group}={now[group]}"
        for target, value in brings_of(choices.file(group, now[group])).items():
            # Its own settings are those that it has in this group alone (`teacher`).
            if (target in named and target != group) or target in found.choices:
                continue
            if isinstance(value, dict):
                keys = {f"{target}.{leaf}": (one, by) for leaf, one in value.items()}
                if not keys.keys() & found.settings.keys():  # what belongs together stays together
                    found.settings |= keys
                continue
            choices.file(target, value)  # refuses one that there is not
            found.choices[target] = (value, by)
            if now.get(target) != value:
                _forget(found, f"{target}={now.get(target)}")
                now[target] = value
                todo = [t for t in todo if t != target] + [target]
    return found


def _forget(found: Brought, by: str) -> None:
    """Take back what a choice brought that another one took the place of."""
    found.choices = {k: v for k, v in found.choices.items() if v[1] != by}
    found.settings = {k: v for k, v in found.settings.items() if v[1] != by}


def described(words: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
    """Return a line for each choice that brings something.

    Args:
        words: by who brings it, what it brings as it could be typed.
    """
    return tuple(f"{by} brings {' '.join(brought)}" for by, brought in words.items())


def as_words(brought: Mapping[str, str | Mapping[str, Any]]) -> list[str]:
    """Return what a file brings as it could be typed."""
    words = []
    for group, value in brought.items():
        if isinstance(value, str):
            words.append(f"{group}={value}")
        else:
            words += [f"{group}.{leaf}={as_word(one)}" for leaf, one in value.items()]
    return words


def as_word(value: Any) -> str:
    """Return a value as it could be typed."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return str(value).replace(" ", "") if isinstance(value, list) else str(value)
