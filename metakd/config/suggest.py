"""One clear line for whatever goes wrong while a configuration is composed."""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Iterable
from typing import Any

from metakd.config.declared import known_settings
from metakd.config.schema import Config
from metakd.errors import UserError, nearest

__all__ = ["expected", "flattened", "unknown_setting"]


def expected(kind: Any) -> str:
    """Say in words what values a setting of type `kind` takes."""
    words = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "text",
        type(None): "null",
        list[int]: "a list of whole numbers, like [1,5]",
        list[str]: "a list of names, like [a,b]",
    }
    if isinstance(kind, types.UnionType):
        return " or ".join(expected(k) for k in typing.get_args(kind))
    if kind in words:
        return words[kind]
    return "a dictionary, like {a: 1}" if typing.get_origin(kind) is dict else str(kind)


def unknown_setting(key: str, value: str, groups: Iterable[str]) -> str:
    """Return the message for a setting that does not exist, with the nearest ones that do."""
    settings = known_settings()
    groups = list(groups)
    if key == "architecture":
        return f"architecture={value}: no such group; type teacher={value} or student={value}"
    prefix, _, leaf = key.rpartition(".")
    if not prefix:
        # `algoritm=maml` is a misspelt group, `lr=1` a setting without its group.
        homes = [s for s in settings if s.rpartition(".")[2] == key]
        if homes:
            return f"{key}: no such setting. Did you mean {_either(homes)}?"
        match = difflib.get_close_matches(key, [*groups, *settings], n=1, cutoff=0.6)
        if not match:
            leaves = {s.rpartition(".")[2] for s in settings}
            near = difflib.get_close_matches(key, leaves, n=1, cutoff=0.6)
            match = [s for s in settings if near and s.rpartition(".")[2] == near[0]]
        hint = f" Did you mean {_either(match)}?" if match else " See: metakd train --help"
        return f"{key}: no such group or setting.{hint}"
    own = [s for s in settings if s.startswith(prefix + ".")]
    near = difflib.get_close_matches(key, own, n=1, cutoff=0.75)
    homes = [s for s in settings if s.rpartition(".")[2] == leaf]  # right name, wrong group
    if not near + homes:
        near = difflib.get_close_matches(key, own or settings, n=1, cutoff=0.5)
    hint = f" Did you mean {_either(near + homes)}?" if near + homes else ""
    return f"{key}: no such setting.{hint}"


def _either(names: list[str]) -> str:
    shown = [f"'{n}'" for n in names[:4]]
    return " or ".join([", ".join(shown[:-1]), shown[-1]] if shown[1:] else shown)


def flattened(error: BaseException) -> UserError:
    """Turn an exception of Hydra, OmegaConf or YAML into a UserError of one line."""
    parts = [str(error)]
    cause = error.__cause__
    while cause is not None:
        parts.append(str(cause))
        cause = cause.__cause__
    text = "\n".join(p for p in parts if p)
    missing = re.search(r"Could not (?:find|load) '([^']+)'", text)
    if missing:
        wanted = missing.group(1)
        group, _, choice = wanted.rpartition("/")
        options = re.findall(r"^\t([^=\s]+)$", text.partition("Available options")[2], re.MULTILINE)
        asked = f"{group}={choice}" if group else wanted
        hint = nearest(choice, options)
        if options and not hint:
            hint = f" Choose one of: {', '.join(options)}."
        return UserError(f"{asked}: no such configuration file.{hint}")
    unknown = re.search(r"Key '([^']+)' (?:is )?not in '(\w+)'", text)
    where = re.search(r"In '([^']+)'", text)
    if unknown:
        key, schema = unknown.groups()
        own = _fields_of(schema)
        place = f"{where.group(1)}.yaml: " if where else ""
        full = re.search(r"full_key: (\S+)", text)
        name = full.group(1) if full else key
        if key in ("True", "False"):  # YAML reads a bare on, off, yes, no as a truth value
            return UserError(f"{place}{name}: write the key in quotes: 'on': …")
        return UserError(f"{place}{name}: no such setting.{nearest(key, own)}")
    lines = [line.strip() for line in text.splitlines()]
    kept = [s for s in lines if s and not s.startswith(("object_type=", "reference_type="))]
    return UserError("; ".join(dict.fromkeys(kept)))


def _fields_of(schema: str) -> list[str]:
    for cls in {Config, *known_settings().values()}:
        if cls.__name__ == schema:
            return list(typing.get_type_hints(cls))
    return []
