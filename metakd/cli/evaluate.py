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
       metakd evaluate RUN RUN ... --ensemble [SETTING=VALUE ...]

Evaluates the models of the finished run in the folder RUN again: on other tasks, other data, with
more adaptation steps. Settings that are not typed are those of the run. Writes
RUN/evaluations/DATE_TIME/results.json and leaves the run's own results unchanged. Images get the
preprocessing of the run's networks. Classes that the networks were trained on are refused
(evaluate.seen=leave_out leaves them out, evaluate.seen=keep includes them).

--ensemble evaluates the students of several runs together: the mean of their probabilities, beside
the figures of each. They share data, class split and tasks. Writes into the first run's folder.

examples:
  metakd evaluate outputs/glyphs_protonet/2026-01-31_12-00-00 task.shots=5
  metakd evaluate RUN dataset=omniglot task=20way_1shot evaluate.tasks=1000
  metakd evaluate RUN --images new_photos task.ways=3
  metakd evaluate outputs/my_run/0 outputs/my_run/1 outputs/my_run/2 --ensemble

options:
  --images FOLDER          a folder with one folder of images for each new class; all of them are
                           test classes; task.ways of them are enough
  --ensemble               average the answers of the students of several runs
  --config-dir, -cd DIR    a folder of your own configuration files, for a dataset of your own

Settings: the groups dataset, task and evaluate, and algorithm.inner_steps_test,
device, precision, data_root, cache_root."""


def evaluate_parser() -> Parser:
    """Return the parser of this command's options."""
    parser = Parser("evaluate", HELP)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--images")
    parser.add_argument("--ensemble", action="store_true")
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
    named = [word for i, word in enumerate(asked.words) if not i or "=" not in word]
    folders = [Path(word) for word in named]
    for folder in folders:
        if not folder.is_dir():
            hint = "; name the run's folder first" if "=" in named[0] else ""
            raise UserError(f"{folder}: there is no such run folder{hint}")
    overrides = [word for word in asked.words[1:] if "=" in word]
    if len(folders) > 1 and not asked.ensemble:
        raise UserError(
            f"evaluate: {len(folders)} runs; type --ensemble for the average of their students' "
            "answers, or evaluate one at a time"
        )
    if asked.images is not None:
        if not Path(asked.images).expanduser().is_dir():
            raise UserError(f"--images {asked.images}: there is no such folder")
        from metakd.config.recorded import images_overrides

        overrides = [*images_overrides(asked.images), *overrides]
    from metakd.config.checks import check
    from metakd.config.recorded import for_evaluation, recorded_composed
    from metakd.runs.folder import RunFolder

    # Refuse what can be refused before torch is imported.
    for folder in folders:
        if (folder / ".hydra" / "config.yaml").is_file():
            info = RunFolder(folder).read_run() if (folder / "run.json").is_file() else None
            config = recorded_composed(folder, info, overrides, asked.config_dir).config
            for_evaluation(config)
            check(config)
            look_here_for(config.plugins)
    from metakd import pipeline

    if asked.ensemble:
        pipeline.evaluate_ensemble(folders, overrides, asked.config_dir)
    else:
        pipeline.evaluate_run(folders[0], overrides, asked.config_dir)
    return 0
