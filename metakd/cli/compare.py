"""`metakd compare RUN_OR_FOLDER…`: settings that differ between runs, and their results."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from metakd.cli.parser import Parser
from metakd.errors import UserError, nearest

if TYPE_CHECKING:
    from metakd.comparing.compare import Comparison

__all__ = ["compare_parser", "run", "shots_of"]

MODELS = ("student", "compressed", "student_alone", "teacher")

HELP = """\
usage: metakd compare RUN_OR_FOLDER ... [--baseline RUN] [OPTIONS]

Compares runs: the settings in which they differ, accuracy of student and teacher with 95 %
intervals, cost, and paired differences on the same evaluation tasks. A folder stands for all runs
in it, such as those of a multirun. Runs that differ only in the seed become one row. If runs have
different numbers of tasks, differences are over their common tasks. Runs that were evaluated on
different tasks are in separate tables, with the reason; failed, interrupted and running ones are
listed separately.

On a terminal rows are named by the settings that differ, common settings are printed once, and
tables fit the width; with 3 to 5 rows and no baseline all pairs are shown.

examples:
  metakd compare outputs/glyphs_protonet
  metakd compare outputs/sweep --baseline outputs/sweep/0
  metakd compare RUN1 RUN2 RUN3 --baseline RUN1 --markdown > table.md
  metakd compare outputs --shots 1,5 --json > comparison.json

options:
  --baseline RUN       compare all others with this run (or the group that it belongs to);
                       default: all pairs, up to 500
  --model MODEL        whose figures are compared: student (default), student_alone, teacher
  --shots K[,K ...]    which numbers of shots; default: those of the runs' main results
  --no-group           a row for each run, also where only the seed differs
  --group              a row for all seeds (the default)
  --json, --csv, --markdown, --latex
                       print only this format (LaTeX: booktabs)
  --html FILE          also write the tables as one page

Exit status: 0, also if some runs failed; 2 if there is no run, or the baseline has no results."""

FORMATS = ("json", "csv", "markdown", "latex")


def compare_parser() -> Parser:
    """Return the parser of this command's options."""
    parser = Parser("compare", HELP)
    parser.add_argument("paths", nargs="*")
    parser.add_argument("--baseline")
    parser.add_argument("--model", default="student")
    parser.add_argument("--shots", default="")
    parser.add_argument("--no-group", action="store_true")
    parser.add_argument("--group", action="store_true")
    for name in FORMATS:
        parser.add_argument(f"--{name}", action="store_true")
    parser.add_argument("--html")
    return parser


def run(arguments: Sequence[str]) -> int:
    """Compare runs and print what was found."""
    asked = compare_parser().read(arguments)
    if asked.help:
        print(HELP)
        return 0
    if not asked.paths:
        raise UserError("compare: which runs? metakd compare RUN_OR_FOLDER ...")
    formats = [name for name in FORMATS if getattr(asked, name)]
    if len(formats) > 1:
        raise UserError(f"--{formats[0]} and --{formats[1]} are mutually exclusive")
    if asked.group and asked.no_group:
        raise UserError("--group and --no-group are mutually exclusive")
    if asked.model not in MODELS:
        hint = nearest(asked.model, MODELS)
        raise UserError(f"--model {asked.model}: expected {', '.join(MODELS)}.{hint}")
    shots = shots_of(asked.shots)
    from metakd.comparing.compare import compare

    comparison = compare(
        [Path(path).expanduser() for path in asked.paths],
        baseline=None if asked.baseline is None else Path(asked.baseline).expanduser(),
        model=asked.model,
        shots=shots,
        grouped=not asked.no_group,
    )
    if asked.html is not None:
        _write_page(comparison, Path(asked.html).expanduser())
    _writer(formats[0] if formats else "")(comparison)
    return 0


def shots_of(text: str) -> list[int]:
    """Return the numbers of shots in `--shots`.

    Raises:
        UserError: it is not a list of positive integers.
    """
    try:
        shots = [int(word) for word in text.split(",")] if text else []
    except ValueError:
        shots = [0]
    if any(k < 1 for k in shots):
        raise UserError(f"--shots {text}: expected whole numbers, at least 1, such as 1,5")
    return shots


def _writer(name: str) -> Callable[[Comparison], None]:
    from metakd.comparing import formats, machine
    from metakd.comparing.tables import report

    texts: dict[str, Callable[[Comparison], str]] = {
        "json": machine.as_json,
        "csv": machine.as_csv,
        "markdown": lambda c: formats.as_markdown(report(c)),
        "latex": lambda c: formats.as_latex(report(c)),
    }
    if name in texts:
        return lambda comparison: _print(texts[name](comparison))
    from rich.console import Console

    from metakd.comparing.screen import screen_report

    console = Console()
    return lambda c: formats.print_report(screen_report(c, console.width), console)


def _print(text: str) -> None:
    sys.stdout.write(text)


def _write_page(comparison: Comparison, path: Path) -> None:
    from metakd.comparing.formats import as_html
    from metakd.comparing.tables import report
    from metakd.runs.atomic import write_text

    try:
        write_text(path, as_html(report(comparison)))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UserError(f"--html '{path}' cannot be written ({reason})") from error
