"""What the schema declares of a setting, by the dotted name under which it is typed."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping
from typing import Any

from metakd.config.schema import Config, Setting

__all__ = [
    "decides_evaluation",
    "declaration",
    "declarations",
    "field_types",
    "is_bookkeeping",
    "is_fact",
    "known_groups",
    "known_settings",
    "value_of",
]


@functools.cache
def known_settings() -> Mapping[str, type]:
    """Return every setting by its dotted name, with the dataclass that declares it."""
    return types.MappingProxyType(
        {key: cls for key, (cls, leaf) in _declared(Config, "").items() if leaf}
    )


@functools.cache
def known_groups() -> tuple[str, ...]:
    """Return the groups of the schema, in its order."""
    return tuple(dict.fromkeys(k.partition(".")[0] for k in known_settings() if "." in k))


@functools.cache
def field_types() -> Mapping[str, Any]:
    """Return the type of every setting by its dotted name."""
    found = {
        key: typing.get_type_hints(cls)[key.rpartition(".")[2]]
        for key, cls in known_settings().items()
    }
    return types.MappingProxyType(found)


@functools.cache
def declarations(cls: type = Config, prefix: str = "") -> Mapping[str, Setting]:
    """Return what is declared of each setting of a dataclass, and of each group, by dotted name."""
    found = {}
    for key, (owner, _) in _declared(cls, prefix).items():
        fields = {field.name: field for field in dataclasses.fields(owner)}
        found[key] = fields[key.rpartition(".")[2]].metadata.get("setting", Setting())
    return types.MappingProxyType(found)


def declaration(key: str) -> Setting:
    """Return what is declared of a setting, or of an entry of a dictionary of settings."""
    known = declarations()
    while key not in known and "." in key:
        key = key.rpartition(".")[0]
    return known.get(key, Setting())


def is_fact(key: str) -> bool:
    """Tell whether a dotted name is a fact about a choice: nobody sets it, its file states it."""
    return key.split(".")[1:2] == ["supports"] or declaration(key).fact


def is_bookkeeping(key: str) -> bool:
    """Tell whether a setting (or group) has no part in a figure: where files are, who watches.

    Another folder for a run is another run; see `Setting.decides`.
    """
    return "nothing" in (declaration(key).decides, declaration(key.partition(".")[0]).decides)


def decides_evaluation(key: str) -> bool:
    """Tell whether a setting, or the choice of a group, decides on what a run is evaluated."""
    own = [s for name, s in declarations().items() if name == key or name.startswith(f"{key}.")]
    return any(s.evaluation for s in own) or declaration(key.partition(".")[0]).evaluation


def value_of(config: Config, key: str) -> Any:
    """Return the value of a setting by its dotted name."""
    return functools.reduce(getattr, key.split("."), config)


def _declared(cls: type, prefix: str) -> dict[str, tuple[type, bool]]:
    """Return by dotted name the dataclass of a field, and whether it is no dataclass itself."""
    found: dict[str, tuple[type, bool]] = {}
    for name, kind in typing.get_type_hints(cls).items():
        nested = dataclasses.is_dataclass(kind) and isinstance(kind, type)
        found[f"{prefix}{name}"] = (cls, not nested)
        if nested:
            found |= _declared(kind, f"{prefix}{name}.")
    return found
