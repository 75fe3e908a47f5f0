"""What subcommands are given: options (argparse with one-line user errors), modules of plug-ins."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from metakd.errors import UserError, nearest

__all__ = ["Parser", "look_here_for"]

SETTINGS = ("overrides", "words")
"""Names of the arguments that hold settings (`key=value`)."""


class Parser(argparse.ArgumentParser):
    """An argument parser that raises UserError and lets options stand anywhere."""

    def __init__(self, command: str, help_text: str) -> None:
        super().__init__(prog=f"metakd {command}", add_help=False, allow_abbrev=False)
        self.help_text = help_text
        self.add_argument("--help", "-h", action="store_true")

    def error(self, message: str) -> NoReturn:
        """Turn argparse's complaint into a user error."""
        raise UserError(f"{message}; see {self.prog} --help")

    def options(self) -> list[str]:
        """Return the names of all options."""
        return [name for action in self._actions for name in action.option_strings]

    def read(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parse `arguments`; options and overrides may be mixed.

        Raises:
            UserError: an option that does not exist, with the nearest one that does.
        """
        known, rest = self.parse_known_intermixed_args(list(arguments))
        unknown = [word for word in rest if word.startswith("-")]
        if unknown or rest:
            whole = (unknown or rest)[0]
            word = whole.partition("=")[0]
            hint = nearest(word, self.options())
            if any(action.dest in SETTINGS for action in self._actions):
                from metakd.config.suggest import as_option

                place = list(arguments).index(whole) + 1
                hint = as_option(whole, arguments[place] if place < len(arguments) else "") or hint
            raise UserError(f"{word}: no such option of {self.prog}.{hint}")
        return known


def look_here_for(plugins: Sequence[str]) -> None:
    """Find the modules of `plugins=[…]` in the current folder, too.

    A console script has its own folder on Python's path, not the current one. Installed packages
    still come first, and without plugins nothing changes.
    """
    if plugins and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
