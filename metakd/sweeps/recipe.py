"""`sweep=NAME`: a file of conf/sweep with settings, values to combine, or a space to search."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metakd.config.compose import typed_plugins
from metakd.config.locate import Choices, user_folder
from metakd.config.overrides import parse, quoted
from metakd.config.paths import PATH_KEYS
from metakd.config.permitted import read_config_file
from metakd.config.renamed import renamed_key
from metakd.errors import UserError, nearest

__all__ = ["GROUP", "Recipe", "chosen", "read_recipe", "shown", "word"]

GROUP = "sweep"
SECTIONS = ("settings", "grid", "search", "space")
BARE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./")
"""Characters that need no quotes in Hydra's grammar."""


@dataclass(frozen=True)
class Recipe:
    """The content of a file of conf/sweep.

    Attributes:
        name: of the choice.
        settings: of every job, by dotted name.
        grid: values that are combined, by dotted name.
        search: how to search (`metakd.config.schema.SweepConfig`).
        space: what to search; None if the file is no search.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    grid: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    search: Mapping[str, Any] = field(default_factory=dict)
    space: Mapping[str, Any] | None = None

    def words(self, typed: Iterable[str] = ()) -> list[str]:
        """Return settings and grid as overrides, without those that are typed."""
        beaten = set(typed)
        fixed = [word(k, v) for k, v in self.settings.items() if k not in beaten]
        swept = [
            f"{k}={','.join(shown(k, v) for v in values)}"
            for k, values in self.grid.items()
            if k not in beaten
        ]
        return fixed + swept


def chosen(words: Sequence[str], config_dir: str | None) -> tuple[Recipe | None, list[str]]:
    """Return the recipe that `sweep=NAME` names, if any, and the other words.

    Raises:
        UserError: there is no such file, it cannot be used, or two are named.
    """
    named = [w for w in words if w.partition("=")[0].lstrip("+") == GROUP]
    rest = [w for w in words if w not in named]
    if not named:
        return None, rest
    name = named[-1].partition("=")[2]
    if len(named) > 1 or "," in name:
        raise UserError(f"{' '.join(named)}: one sweep at a time")
    if name in ("", "null"):
        return None, rest
    own = [w for w in rest if w.startswith("plugins=")]
    return read_recipe(name, config_dir, typed_plugins(parse(own))), rest


def read_recipe(name: str, config_dir: str | None = None, plugins: Sequence[str] = ()) -> Recipe:
    """Return the content of `sweep/NAME.yaml`; its settings are checked when they are composed.

    Raises:
        UserError: there is no such file, or it is no recipe.
    """
    file = Choices(user_folder(config_dir)).file(GROUP, name)
    content = read_config_file(file, plugins)
    if not isinstance(content, dict) or not content:
        raise UserError(f"{file}: holds no settings; write them as 'key: value' lines")
    for key in content:
        if key not in SECTIONS:
            hint = nearest(str(key), SECTIONS) or f" There are: {', '.join(SECTIONS)}."
            raise UserError(f"{file}: {key}: no such section.{hint}")
    parts = {section: _mapping(content, section, file) for section in SECTIONS}
    if "space" in content and parts["grid"]:
        raise UserError(f"{file}: has both a grid and a space; they are mutually exclusive")
    if "search" in content and "space" not in content:
        raise UserError(f"{file}: has settings of a search, but no space to search")
    for key, values in parts["grid"].items():
        if not isinstance(values, list) or not values:
            raise UserError(f"{file}: grid: {key}: expected a list of values, like [a, b]")
    space = parts["space"] if "space" in content else None
    return Recipe(name, parts["settings"], parts["grid"], parts["search"], space)


def word(key: str, value: Any) -> str:
    """Return `key=value` as it can be typed, without shell quoting."""
    return f"{key}={shown(key, value)}"


def shown(key: str, value: Any) -> str:
    """Return a value as Hydra's grammar reads it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{k}:{shown('', v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(shown("", v) for v in value) + "]"
    text = str(value)
    if key in PATH_KEYS:
        return quoted(f"{key}={text}").partition("=")[2]
    if text and BARE.issuperset(text):
        # Text that would be read as a number, a boolean or null is quoted.
        plain = parse([f"x={text}"])[0].value()
        return text if isinstance(plain, str) else f"'{text}'"
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _mapping(content: Mapping[Any, Any], section: str, file: Path) -> dict[str, Any]:
    value = content.get(section)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UserError(f"{file}: {section}: expected 'key: value' lines")
    return {renamed_key(str(k)): v for k, v in value.items()}
