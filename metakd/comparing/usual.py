"""The value of a setting that nobody set: what its choice's file says, else the schema."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any

import omegaconf

from metakd.config import schema
from metakd.config.locate import Choices
from metakd.plain_data import UnreadableError, flat, parse_yaml, read_text

__all__ = ["completed", "of_choice"]


def completed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's settings with those that were added after it was recorded, as they were then.

    Args:
        settings: by dotted name, as recorded. A group that a run does not have at all stays absent.
    """
    found = dict(settings)
    for group, section in typing.get_type_hints(schema.Config).items():
        name = settings.get(f"{group}.name")
        if not dataclasses.is_dataclass(section) or not isinstance(name, str):
            continue
        usual = {**flat(_defaults(section), f"{group}."), **of_choice(group, name)}
        # After what is recorded, whose order is that of the columns.
        found |= {key: value for key, value in usual.items() if key not in found}
    return found


@cache
def of_choice(group: str, choice: str) -> Mapping[str, Any]:
    """Return the settings that a built-in choice brings along; empty for somebody's own."""
    file = Choices().of(group).get(choice)
    if file is None:
        return {}
    try:
        content = parse_yaml(read_text(file))
    except UnreadableError:
        return {}
    if not isinstance(content, dict) or "defaults" in content:
        return {}
    usual = _defaults(typing.get_type_hints(schema.Config)[group])
    return flat({**usual, **content}, f"{group}.")


def _defaults(section: Any) -> dict[str, Any]:
    usual: dict[str, Any] = {}
    for field in dataclasses.fields(section):
        if field.default_factory is not dataclasses.MISSING:
            usual[field.name] = field.default_factory()
        elif field.default not in (dataclasses.MISSING, omegaconf.MISSING):
            usual[field.name] = field.default
    return usual
