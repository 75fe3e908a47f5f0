"""`metakd compress RUN [OVERRIDES]`: make a finished run's student smaller."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from metakd.cli.parser import Parser, look_here_for
from metakd.errors import UserError

__all__ = ["compress_parser", "run"]

HELP = """\
usage: metakd compress RUN compress=CHOICE [SETTING=VALUE ...]
       metakd compress --learn FOLDER [--output FILE] [--jobs N] [--strategies N]

Makes the student of the finished run in the folder RUN smaller, to a budget: channels are taken
away and the rest recovers, taught by the student as it was (prune); weights and activations become
integers (quantize); or both (prune_quantize). Writes RUN/compressions/DATE_TIME/results.json, with
the smaller student's figures beside the student's on the same tasks, and its weights in
checkpoints/compressed.safetensors. The run's own results stay as they are.

--learn tries strategies (how layers share a budget) on all finished runs in FOLDER, keeps what they
reach in FOLDER/compression_table.jsonl, and trains a proposer on it, for compress.strategy=meta.
What the table holds is not tried again.

examples:
  metakd compress outputs/glyphs_protonet/2026-01-31_12-00-00 compress=prune compress.macs=0.5
  metakd compress RUN compress=prune compress.parameters=0.3 compress.importance=taylor
  metakd compress RUN compress=quantize compress.qat=true
  metakd compress RUN compress=prune_quantize compress.bytes=0.1 compress.iterations=2000
  metakd compress --learn outputs --output proposer.safetensors --jobs 2
  metakd compress RUN compress=prune compress.strategy=meta compress.proposer=proposer.safetensors

options:
  --learn FOLDER           of runs to learn from
  --output FILE            the proposer; otherwise FOLDER/proposer.safetensors
  --jobs N                 processes that try strategies at the same time (1)
  --strategies N           random strategies of each run and budget (24)
  --config-dir, -cd DIR    a folder of your own configuration files

Settings: the groups compress, distill (the losses of the recovery) and evaluate, and device,
precision, data_root, cache_root. `metakd list compress` names the choices."""


def compress_parser() -> Parser:
    """Return the parser of this command's options."""
    parser = Parser("compress", HELP)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--config-dir", "-cd")
    for option in ("--learn", "--output", "--jobs", "--strategies"):
        parser.add_argument(option)
    return parser


def run(arguments: Sequence[str]) -> int:
    """Make a run's student smaller."""
    asked = compress_parser().read(arguments)
    if asked.help:
        print(HELP)
        return 0
    if asked.learn is not None:
        if asked.words:
            raise UserError(
                f"compress --learn FOLDER takes no settings: leave out {asked.words[0]}"
            )
        from metakd.cli.compress_learn import learn

        return learn(asked.learn, asked.output, asked.jobs, asked.strategies)
    for option in ("output", "jobs", "strategies"):
        if getattr(asked, option) is not None:
            raise UserError(f"compress: --{option} goes with --learn FOLDER")
    if not asked.words:
        raise UserError("compress: which run? metakd compress RUN compress=prune")
    folder = Path(asked.words[0])
    if not folder.is_dir():
        hint = "; name the run's folder first" if "=" in asked.words[0] else ""
        raise UserError(f"{folder}: there is no such run folder{hint}")
    overrides = asked.words[1:]
    from metakd.config.checks import check
    from metakd.config.recorded import for_compression, recorded_composed
    from metakd.runs.folder import RunFolder

    # Refuse what can be refused before torch is imported.
    if (folder / ".hydra" / "config.yaml").is_file():
        info = RunFolder(folder).read_run() if (folder / "run.json").is_file() else None
        config = recorded_composed(folder, info, overrides, asked.config_dir).config
        if not config.compress.enabled:
            raise UserError(
                "compress: how? type compress=prune, compress=quantize or compress=prune_quantize"
            )
        for_compression(config)
        check(config)
        look_here_for(config.plugins)
    from metakd import pipeline

    pipeline.compress_run(folder, overrides, asked.config_dir)
    return 0
