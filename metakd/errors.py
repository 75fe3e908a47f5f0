"""The exceptions with a message for people: what was given, or what happened to a run."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable

__all__ = ["RunError", "UserError", "cause_line", "check_word", "first_line", "nearest"]


class UserError(ValueError):
    """Something the user gave cannot be used: command line, config, data, checkpoint, folder.

    The message is one line that says what is wrong, where, the nearest valid value and what to
    do. The command line prints it alone on standard error and ends with status 2.
    """


class RunError(RuntimeError):
    """A run cannot go on: a full disk, a loss that is not finite, too little memory.

    The message is one line that says what happened, where, and what to do. The command line prints
    it alone on standard error and ends with status 1; what was trained so far is kept.
    """


def nearest(word: str, choices: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the closest of `choices`, or an empty string."""
    matches = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.5)
    return f" Did you mean '{matches[0]}'?" if matches else ""


def check_word(setting: str, value: object, words: Collection[str]) -> None:
    """Refuse a setting whose value is none of `words`.

    Raises:
        UserError: with all of them, and the nearest.
    """
    if value not in words:
        hint = nearest(str(value), words)
        raise UserError(f"{setting}={value}: expected one of {', '.join(words)}.{hint}")


def first_line(error: BaseException) -> str:
    """Return the first line of what an exception says, or its name if it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def cause_line(error: BaseException) -> str:
    """Return the first line of what an exception was raised from, else of itself.

    An exporter's own exception is a page about its steps; the cause says what stood in the way.
    """
    return first_line(error.__cause__ or error)
