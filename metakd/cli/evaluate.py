"""`metakd evaluate RUN [OVERRIDES]`: evaluate a finished run's models again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from metakd.cli.parser import Parser, look_here_for
from metakd.errors import UserError

__all__ = ["evaluate_parser", "run"]

HELP = """\
usage: metakd evaluate RUN [GROUP=CHOICE ...] [SETTING=VALUE ...]
       metakd evaluate RUN --images FOLDER [SETTING=VALUE ...]

Evaluates the models of the finished run in the folder RUN again: on other tasks, other data, with
more adaptation steps. Settings that are not typed are those of the run. Writes
RUN/evaluations/DATE_TIME/results.json and leaves the run's own results unchanged. Images get the
preprocessing of the run's networks. Classes that the networks were trained on are refused
(evaluate.seen=leave_out leaves them out, evaluate.seen=keep includes them).

examples:
  metakd evaluate outputs/glyphs_protonet/2026-01-31_12-00-00 task.shots=5
  metakd evaluate RUN dataset=omniglot task=20way_1shot evaluate.tasks=1000
  metakd evaluate RUN --images new_photos task.ways=3

options:
  --images FOLDER          a folder with one folder of images for each new class; all of them are
                           test classes; task.ways of them are enough
  --config-dir, -cd DIR    a folder of your own configuration files, for a dataset of your own

Settings: the groups dataset, task and evaluate, and algorithm.inner_steps_test,
device, precision, data_root, cache_root."""


def evaluate_parser() -> Parser:
    """Return the parser of this command's options."""
    parser = Parser("evaluate", HELP)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--images")
    parser.add_argument("--config-dir", "-cd")
    return parser


def run(arguments: Sequence[str]) -> int:
    """Evaluate a run again."""
    asked = evaluate_parser().read(arguments)
    if asked.help:
        print(HELP)
        return 0
    if not asked.words:
        raise UserError("evaluate: which run? metakd evaluate RUN [OVERRIDES]")
    folder = Path(asked.words[0])
    if not folder.is_dir():
        hint = "; name the run's folder first" if "=" in asked.words[0] else ""
        raise UserError(f"{asked.words[0]}: there is no such run folder{hint}")
    overrides = asked.words[1:]
    if asked.images is not None:
        if not Path(asked.images).expanduser().is_dir():
            raise UserError(f"--images {asked.images}: there is no such folder")
        from metakd.config.recorded import images_overrides

        overrides = [*images_overrides(asked.images), *overrides]
    from metakd.config.checks import check
    from metakd.config.recorded import for_evaluation, recorded_composed
    from metakd.runs.folder import RunFolder

    # Refuse what can be refused before torch is imported.
    if (folder / ".hydra" / "config.yaml").is_file():
        info = RunFolder(folder).read_run() if (folder / "run.json").is_file() else None
        config = recorded_composed(folder, info, overrides, asked.config_dir).config
        for_evaluation(config)
        check(config)
        look_here_for(config.plugins)
    from metakd import pipeline

    pipeline.evaluate_run(folder, overrides, asked.config_dir)
    return 0
