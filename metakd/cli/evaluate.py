"""`metakd evaluate RUN [OVERRIDES]`: judge a finished run's models again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from metakd.cli.parser import Parser
from metakd.cli.plugins import look_here_for
from metakd.errors import UserError

__all__ = ["run"]

HELP = """\
usage: metakd evaluate RUN [GROUP=CHOICE ...] [SETTING=VALUE ...]

Judges the models of the finished run in the folder RUN again: on other tasks, other data, more
adaptation steps. What is not typed stays as the run recorded it. Writes
RUN/evaluations/DATE_TIME/results.json and never touches the run's own results.

examples:
  metakd evaluate outputs/glyphs_protonet/2026-01-31_12-00-00 task.shots=5
  metakd evaluate RUN dataset=omniglot task=20way_1shot evaluate.tasks=1000

options:
  --config-dir, -cd DIR    a folder of your own configuration files, for a dataset of your own

Settings: dataset, task and evaluate with all that belongs to them, algorithm.inner_steps_test,
device, precision, data_root, cache_root."""


def run(arguments: Sequence[str]) -> int:
    """Evaluate a run again."""
    parser = Parser("evaluate", HELP)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--config-dir", "-cd")
    asked = parser.read(arguments)
    if asked.help:
        print(HELP)
        return 0
    if not asked.words:
        raise UserError("evaluate: which run? metakd evaluate RUN [OVERRIDES]")
    folder = Path(asked.words[0])
    if not folder.is_dir():
        hint = "; name the run's folder first" if "=" in asked.words[0] else ""
        raise UserError(f"{asked.words[0]}: there is no such run folder{hint}")
    from metakd.config.checks import check
    from metakd.config.compose import recompose

    recorded = folder / ".hydra" / "config.yaml"
    if recorded.is_file():  # refuse what can be refused before torch is imported
        config = recompose(recorded, asked.words[1:], asked.config_dir).config
        # Where the run's training began may be gone; its own models are judged.
        config.student.checkpoint = config.teacher.checkpoint = None
        config.pretrain.enabled = True
        check(config)
        look_here_for(config.plugins)
    from metakd import pipeline

    pipeline.evaluate_run(folder, asked.words[1:], asked.config_dir)
    return 0
