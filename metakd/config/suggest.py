"""One clear line for whatever goes wrong while a configuration is composed, and what was meant."""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Iterable
from typing import Any

from metakd.config.declared import known_settings
from metakd.config.locate import ALIASES, Choices
from metakd.config.schema import Config
from metakd.config.torchvision_names import CLASSIFIERS
from metakd.errors import UserError, nearest

__all__ = [
    "as_option",
    "expected",
    "flattened",
    "malformed",
    "missing_choice",
    "unknown_setting",
]

WORDS = ("resume", "replay", "resume_changed", "experiment", "sweep")
"""Words left of `=` that are neither groups of a run nor its settings."""

BRACKETS = {"[": "]", "{": "}", "(": ")"}


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


def missing_choice(group: str, choice: str, choices: Choices) -> str:
    """Return what to say of a choice that is typed in another way here; else nothing."""
    if choice in choices.of(group):
        return ""
    if group in ALIASES and choice in CLASSIFIERS:
        return (
            f"{group}={choice}: no such choice; for torchvision's type {group}=torchvision "
            f"{group}.model={choice}"
        )
    if group == "teacher" and choice in ("none", "None", "null", "false", "False"):
        return f"teacher={choice}: to train without a teacher type distill=none"
    return ""


def malformed(typed: str, following: str = "") -> str:
    """Return what to say of a word that cannot be read.

    Args:
        typed: the word.
        following: the one after it, or nothing.
    """
    key, equals, value = typed.partition("=")
    if not equals:
        hint = _as_setting(typed, following) or nearest(typed, [*known_settings(), *WORDS])
        return f"'{typed}': settings are typed as key=value.{hint}"
    if not key.strip("+~ "):
        return f"'{typed}': the name of a setting is missing before '='"
    missing = _missing(value)
    if missing:
        whole = f"{key}={value.rstrip(', ')}{missing}"
        return (
            f"'{typed}': cannot read this: '{missing}' is missing at its end; a list is one word: "
            f'"{whole}" in quotes'
        )
    return (
        f"'{typed}': cannot read this; quote values that hold special characters, "
        f"for instance \"{key}='{value}'\" with both kinds of quotes"
    )


def as_option(word: str, following: str = "") -> str:
    """Return what to type in place of `--KEY VALUE` or `--KEY=VALUE`; nothing if KEY is unknown.

    Args:
        word: begins with a dash.
        following: the word after it, or nothing.
    """
    key, equals, value = word.lstrip("-").partition("=")
    key = key.replace("-", "_")  # no name of ours has a dash
    if key not in (*Choices().groups(), *known_settings(), *WORDS):
        return ""
    taken = value if equals else following
    if not taken or (not equals and (taken.startswith("-") or "=" in taken)):
        taken = "CHOICE" if key in Choices().groups() else "VALUE"
    return f" Settings have no dashes: type {key}={taken}"


def _as_setting(typed: str, following: str) -> str:
    """Return the setting that a bare word stands for: a choice, or a name without its `=`."""
    choices = Choices()
    if typed in choices.groups() or typed in known_settings() or typed in WORDS:
        value = following if following and "=" not in following else "VALUE"
        return f" Did you mean '{typed}={value}'?"
    homes = [g for g in choices.groups() if typed in choices.of(g)]
    if not homes:
        return ""
    shown = [f"'{g}={typed}'" for g in homes[:3]]
    return f" Did you mean {' or '.join(shown)}?"


def _missing(value: str) -> str:
    """Return the closing brackets that are missing at the end."""
    open_ones: list[str] = []
    for letter in value:
        if letter in BRACKETS:
            open_ones.append(BRACKETS[letter])
        elif open_ones and letter == open_ones[-1]:
            open_ones.pop()
    return "".join(reversed(open_ones))
