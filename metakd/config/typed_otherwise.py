"""Common ways of typing that do not work here, and what to type instead."""

from __future__ import annotations

from metakd.config.declared import known_settings
from metakd.config.locate import ALIASES, Choices
from metakd.config.torchvision_names import CLASSIFIERS
from metakd.errors import nearest

__all__ = ["as_option", "malformed", "missing_choice"]

WORDS = ("resume", "replay", "resume_changed", "experiment", "sweep")
"""Words left of `=` and are neither groups of a run nor its settings."""

BRACKETS = {"[": "]", "{": "}", "(": ")"}


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
