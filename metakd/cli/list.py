"""`metakd list [GROUP]`: the choices of each configuration group, one line each."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from metakd.cli.parser import Parser
from metakd.config.brings import as_words, brings_of
from metakd.config.declared import known_groups
from metakd.config.locate import ALIASES, Choices, description, user_folder
from metakd.errors import UserError, nearest

__all__ = ["run"]

HELP = """\
usage: metakd list [GROUP] [--config-dir DIR]

The choices of each configuration group (of GROUP alone, if given) with one line each. The first
column is what to type: metakd train GROUP=CHOICE. Settings that a choice brings for other groups
apply unless an experiment or the command line sets them.

  --config-dir, -cd DIR   also a folder of your own configuration files, laid out as conf/ is

example: metakd list algorithm"""


def run(arguments: Sequence[str]) -> int:
    """Print the choices."""
    parser = Parser("list", HELP)
    parser.add_argument("group", nargs="*")
    parser.add_argument("--config-dir", "-cd")
    asked = parser.read(arguments)
    if asked.help:
        print(HELP)
        return 0
    choices = Choices(user_folder(asked.config_dir))
    groups = choices.groups()
    known = [*groups, *set(ALIASES.values())]
    for group in asked.group:
        if group not in known:
            hint = nearest(group, known) or f" There are: {', '.join(groups)}."
            raise UserError(f"{group}: no such group.{hint}")
    wanted = asked.group or [g for g in groups if choices.of(g)]
    blocks = [_block(choices, group) for group in wanted]
    sys.stdout.write("\n".join(blocks))
    return 0


def _block(choices: Choices, group: str) -> str:
    files = choices.of(group)
    width = max((len(name) for name in files), default=0) + len(group) + 1
    lines = [
        f"{f'{group}={name}':<{width}}  {_said(group, f)}".rstrip() for name, f in files.items()
    ]
    return "\n".join(lines or [f"{group}: no choices"]) + "\n"


def _said(group: str, file: Path) -> str:
    """Return the description of a choice, and what it brings for other groups."""
    brought = as_words(brings_of(file)) if group in (*known_groups(), *ALIASES.values()) else []
    return description(file) + (f" (brings {' '.join(brought)})" if brought else "")
