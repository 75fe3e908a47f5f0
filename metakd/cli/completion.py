"""`metakd completion SHELL`: a script that completes commands, groups, choices and settings."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from metakd.cli import COMMANDS
from metakd.cli.parser import Parser
from metakd.errors import UserError, nearest

__all__ = ["candidates", "run"]

HELP = """\
usage: metakd completion bash|zsh|fish

Prints a script for your shell; with it the Tab key completes commands, groups, choices and
settings.

examples:
  eval "$(metakd completion bash)"            # in ~/.bashrc
  eval "$(metakd completion zsh)"             # in ~/.zshrc, after compinit
  metakd completion fish | source             # in ~/.config/fish/config.fish"""

BASH = """\
_metakd() {
    local line=${COMP_LINE:0:COMP_POINT} word
    word=${line##* }
    local found
    found=$(metakd completion query "$line" 2>/dev/null)
    COMPREPLY=($(compgen -W "$found" -- "$word"))
    # Bash completes after the last = only, where = breaks words.
    if [[ $word == *=* && $COMP_WORDBREAKS == *=* ]]; then
        COMPREPLY=("${COMPREPLY[@]#"${word%=*}="}")
    fi
}
complete -o nospace -o default -F _metakd metakd"""

ZSH = """\
_metakd() {
    local -a found
    found=(${(f)"$(metakd completion query "${words[1,CURRENT]}" 2>/dev/null)"})
    if (( $#found )); then compadd -S '' -- $found; else _files; fi
}
compdef _metakd metakd"""

FISH = """\
complete -c metakd -a '(metakd completion query (commandline -cp) 2>/dev/null)'"""

SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def run(arguments: Sequence[str]) -> int:
    """Print a script, or (`query LINE`, for the scripts) what the line's last word can become."""
    if list(arguments[:1]) == ["query"]:
        # The line is one word as the shell holds it; it may begin with anything.
        print("\n".join(candidates(" ".join(arguments[1:]))))
        return 0
    parser = Parser("completion", HELP)
    parser.add_argument("shell", nargs="*")
    asked = parser.read(arguments)
    if asked.help:
        print(HELP)
        return 0
    shell = asked.shell[0] if asked.shell else ""
    if shell not in SCRIPTS:
        hint = nearest(shell, SCRIPTS)
        raise UserError(f"completion '{shell}': expected bash, zsh or fish.{hint}")
    print(SCRIPTS[shell])
    return 0


def candidates(line: str) -> list[str]:
    """Return what the last word of a command line can become."""
    words = line.split(" ")
    word = words[-1]
    if len(words) <= 2:
        return [c for c in (*COMMANDS, "--help", "--version") if c.startswith(word)]
    command = words[1]
    if command == "list":
        from metakd.config.locate import Choices

        return [g for g in Choices().groups() if g.startswith(word)]
    if command == "completion":
        return [s for s in SCRIPTS if s.startswith(word)]
    if word.startswith("-"):
        if command not in COMMANDS:
            return []
        module = importlib.import_module(f"metakd.cli.{command}")
        parser = getattr(module, f"{command}_parser", None)
        return [] if parser is None else [o for o in parser().options() if o.startswith(word)]
    if command == "copy":
        from metakd.cli.copy import candidates as choices

        return choices(word)
    takes_settings = command in ("train", "ablate") or (command == "evaluate" and len(words) > 3)
    if not takes_settings:
        return []  # the shell completes file names
    from metakd.cli.show import complete_line

    return complete_line(word)
