"""Options of the wrong type, refused by what a class's constructor says that it takes."""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from metakd.errors import UserError

__all__ = ["check_types"]

WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    type(None): "null",
}


def check_types(cls: type, options: Mapping[str, Any], place: str) -> None:
    """Refuse values that are not of the type which the constructor of `cls` names.

    Numbers pass for text, which a class reads as text itself. Options whose type is none of plain
    values, lists of them and unions of both are left to the class.

    Args:
        cls: the chosen class.
        options: by name; those that it does not take are not looked at.
        place: dotted name of the options, e.g. ``distill.options``.

    Raises:
        UserError: the first value of another type.
    """
    hints = _hints(cls)
    for name, value in options.items():
        hint = hints.get(name)
        if hint is not None and _known(hint) and not _fits(value, hint):
            shown = f"{value}".replace("'", "").replace(", ", ",")
            raise UserError(f"{place}.{name}={shown:.60}: expected {_said(hint)}")


def _hints(cls: type) -> dict[str, Any]:
    """Return the types of the settings by name, of a dataclass of settings those of its fields."""
    try:
        parameters = inspect.signature(cls, eval_str=True).parameters
    except NameError:  # a plugin's, of names that only a type checker knows
        return {}
    found = {name: parameter.annotation for name, parameter in parameters.items()}
    for parameter in parameters.values():
        default = parameter.default
        if dataclasses.is_dataclass(default) and not isinstance(default, type):
            found |= typing.get_type_hints(type(default))
    return found


def _items(hint: Any) -> Any:
    """Return the type of the items of a list's type; None of another type."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    return inner[0] if origin in (Sequence, list) and len(inner) == 1 else None


def _members(hint: Any) -> tuple[Any, ...]:
    """Return the types that a union allows; of another type itself."""
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if union else (hint,)


def _known(hint: Any) -> bool:
    return all(
        member in WORDS or (_items(member) is not None and _known(_items(member)))
        for member in _members(hint)
    )


def _fits(value: Any, hint: Any) -> bool:
    return any(_is(value, member) for member in _members(hint))


def _is(value: Any, kind: Any) -> bool:
    inner = _items(kind)
    if inner is not None:
        return isinstance(value, list | tuple) and all(_fits(one, inner) for one in value)
    if kind is bool or kind is type(None):
        return isinstance(value, kind)
    if kind is str:
        return isinstance(value, str | int | float) and not isinstance(value, bool)
    numbers = int if kind is int else int | float
    return isinstance(value, numbers) and not isinstance(value, bool)


def _said(hint: Any) -> str:
    said = []
    for member in _members(hint):
        inner = _items(member)
        said.append(WORDS[member] if inner is None else f"a list of {_plural(inner)}")
    return " or ".join(said)


def _plural(hint: Any) -> str:
    names = {float: "numbers", int: "whole numbers", str: "names", bool: "true and false"}
    return names.get(hint) or f"items that are {_said(hint)}"
