"""`metakd copy GROUP=CHOICE`: a choice's YAML in the user's own configuration folder, to edit."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from metakd.cli.parser import Parser
from metakd.config.locate import ALIASES, Choices
from metakd.errors import UserError, nearest

__all__ = ["candidates", "copy_parser", "run"]

DEFAULT = "my_conf"

HELP = f"""\
usage: metakd copy GROUP=CHOICE [--config-dir DIR] [--name NAME] [--force]

Copies the file of a built-in choice into your own configuration folder, for you to edit, and says
what to type to use it. It then replaces the built-in choice of the same name, unless you give it
another name. Networks go to architecture/, from where they are offered as teacher= and student=.

  --config-dir, -cd DIR   your folder, created if necessary ({DEFAULT})
  --name, -n NAME         call the copy NAME, so that the built-in choice stays beside it
  --force, -f             overwrite a file that is there already

example: metakd copy algorithm=maml --name my_maml"""


def copy_parser() -> Parser:
    """Return the parser of `metakd copy`."""
    parser = Parser("copy", HELP)
    parser.add_argument("choice", nargs="*")
    parser.add_argument("--config-dir", "-cd", default=DEFAULT)
    parser.add_argument("--name", "-n")
    parser.add_argument("--force", "-f", action="store_true")
    return parser


def run(arguments: Sequence[str]) -> int:
    """Copy one choice and say what to type next."""
    asked = copy_parser().read(arguments)
    if asked.help:
        print(HELP)
        return 0
    if len(asked.choice) != 1:
        raise UserError("copy takes one GROUP=CHOICE, like algorithm=maml; see metakd copy --help")
    group, choice, source = _found(asked.choice[0])
    name = choice if asked.name is None else asked.name
    if not re.fullmatch(r"\w[\w-]*(/\w[\w-]*)*", name, re.ASCII):
        raise UserError(f"--name {name}: use letters, digits, - and _; / for a folder in between")
    target = Path(asked.config_dir).expanduser() / ALIASES.get(group, group) / f"{name}.yaml"
    _write(target, _renamed(source.read_text(encoding="utf-8"), choice, name), asked.force)
    whose = "student" if group == "architecture" else group
    many = "-m " if group == "sweep" else ""
    folder = shlex.quote(str(asked.config_dir))
    print(f"{target}: edit it, then: metakd train {many}--config-dir {folder} {whose}={name}")
    return 0


def candidates(word: str) -> list[str]:
    """Return what the word GROUP=CHOICE can become: groups with their `=`, or whole choices."""
    choices = Choices()
    group, equals, _ = word.partition("=")
    found = [f"{group}={c}" for c in choices.of(group)] if equals else _groups(choices, "=")
    return [f for f in found if f.startswith(word)]


def _groups(choices: Choices, end: str = "") -> list[str]:
    return [f"{g}{end}" for g in choices.groups() if choices.of(g)]


def _found(typed: str) -> tuple[str, str, Path]:
    """Return group, choice and file of a built-in choice.

    Raises:
        UserError: there is none, with the nearest one.
    """
    choices = Choices()
    groups = [*_groups(choices), *sorted(set(ALIASES.values()))]
    group, equals, choice = typed.partition("=")
    if equals and group in groups:
        return group, choice, choices.file(group, choice)
    if equals:
        hint = nearest(group, groups) or f" There are: {', '.join(groups)}."
        raise UserError(f"{group}: no such group.{hint}")
    if group in groups:
        raise UserError(
            f"copy {group}: which one? Type {group}=CHOICE; metakd list {group} names the choices"
        )
    named: dict[str, str] = {}
    for g in groups:
        for c in choices.of(g):
            named.setdefault(c, f"{g}={c}")
    near = difflib.get_close_matches(typed, named, n=1, cutoff=0.5)
    hint = f" Did you mean '{named[near[0]]}'?" if near else " See: metakd list"
    raise UserError(f"copy {typed}: expected GROUP=CHOICE.{hint}")


def _renamed(text: str, choice: str, name: str) -> str:
    """Return a choice's YAML with its own `name:`, if it says one, changed to `name`."""
    return re.sub(rf"^name: {re.escape(choice)}\b", f"name: {name}", text, flags=re.MULTILINE)


def _write(target: Path, text: str, force: bool) -> None:
    """Write a file; overwrite an old one only with `--force`.

    Raises:
        UserError: the file is there already, is the built-in one, or cannot be written.
    """
    try:
        if target.exists() and not force:
            raise UserError(
                f"{target}: exists already; type --force to overwrite it, or --name NAME"
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"{target}: cannot be written ({error.strerror}); choose another --config-dir"
        ) from error
