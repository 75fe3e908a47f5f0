"""`metakd reproduce RUN`: repeat a run and check that every figure is the same."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from metakd.cli.parser import Parser, look_here_for
from metakd.errors import UserError

__all__ = ["reproduce_parser", "run"]

HELP = """\
usage: metakd reproduce RUN [SETTING=VALUE ...] [OPTIONS]

Repeats the finished run in the folder RUN in a new folder, with its recorded configuration and
number of threads, and compares: every figure of results.json except timing, latency and memory,
every task of episodes.csv, every weight bit by bit. If they differ, it lists the recorded
differences between the two environments. The teacher is trained again.

examples:
  metakd reproduce outputs/glyphs_protonet/2026-01-31_12-00-00
  metakd reproduce RUN --json > comparison.json
  metakd reproduce RUN plugins=[my.module] data_root=/data

options:
  --output, -o DIR         the new run's folder; default: OUTPUT_ROOT/NAME/DATE_TIME
  --cached-teacher         take the teacher from the cache if it is there
  --against RUN2           compare with the existing run RUN2 instead of a new one
  --json                   print only the comparison, as JSON
  --config-dir, -cd DIR    a folder of your own configuration files, for a tracker of your own

Settings: data_root, cache_root, output_root, name, tags, tracker (none unless typed), plugins,
device, precision, deterministic, checkpoint_minutes, checkpoint_steps, and the paths
dataset.folder, dataset.splits, teacher.checkpoint, teacher.further_checkpoints,
student.checkpoint, if they have moved.

Exit status: 0 every figure is the same, 1 some differ (or the run failed), 2 it cannot be
repeated: RUN is not finished, its data changed, or it needs plugins that were not typed."""


def reproduce_parser() -> Parser:
    """Return the parser of this command's options."""
    parser = Parser("reproduce", HELP)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--output", "-o")
    parser.add_argument("--cached-teacher", action="store_true")
    parser.add_argument("--against")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--config-dir", "-cd")
    return parser


def run(arguments: Sequence[str]) -> int:
    """Run a run again and compare; return the exit status."""
    asked = reproduce_parser().read(arguments)
    if asked.help:
        print(HELP)
        return 0
    if not asked.words:
        raise UserError("reproduce: which run? metakd reproduce RUN")
    folder, overrides = Path(asked.words[0]).expanduser(), asked.words[1:]
    if not folder.is_dir():
        hint = "; name the run's folder first" if "=" in asked.words[0] else ""
        raise UserError(f"{asked.words[0]}: there is no such run folder{hint}")
    if asked.against is not None and (overrides or asked.output or asked.cached_teacher):
        raise UserError("--against takes no other option: it compares with an existing run")
    _check(folder, overrides, asked.config_dir, asked.against)
    from rich.console import Console

    from metakd import pipeline
    from metakd.reports.equality import print_equality

    report = pipeline.reproduce(
        folder,
        overrides,
        asked.config_dir,
        output=None if asked.output is None else Path(asked.output).expanduser(),
        cached_teacher=asked.cached_teacher,
        against=None if asked.against is None else Path(asked.against).expanduser(),
        quiet=asked.json,
    )
    if asked.json:
        print(json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        print_equality(report, Console())
    return 0 if report["same"] else 1


def _check(
    folder: Path, overrides: Sequence[str], config_dir: str | None, against: str | None
) -> None:
    """Refuse what can be refused before torch is imported."""
    from metakd.config.checks import check
    from metakd.config.recorded import reproduction_composed
    from metakd.runs.equality import finished_info
    from metakd.runs.folder import open_run

    run = open_run(folder)
    info = finished_info(run)
    if against is None:
        config = reproduction_composed(run.path, info, overrides, config_dir).config
        check(config)
        look_here_for(config.plugins)
