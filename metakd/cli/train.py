"""`metakd train [OVERRIDES]`: compose, check, run; or show what would be run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from metakd import __version__
from metakd.cli.parser import Parser, look_here_for
from metakd.config.locate import Choices, user_folder
from metakd.config.schema import Config
from metakd.distributed.join import joined, refuse
from metakd.errors import UserError

__all__ = ["opening", "run", "train_parser"]

HELP = """\
usage: metakd train [GROUP=CHOICE ...] [SETTING=VALUE ...] [OPTIONS]

Runs the whole pipeline: trains a teacher, meta-trains a student with distillation from it,
evaluates both, and writes a folder outputs/NAME/DATE_TIME with results.json.

examples:
  metakd train
  metakd train dataset=omniglot algorithm=maml task=5way_5shot distill=none
  metakd train experiment=omniglot/protonet_5way_1shot seed=1
  metakd train -m seed=0,1,2 distill=none,embedding sweep.jobs=2
  metakd train -m sweep=search sweep.trials=20
  metakd train resume=outputs/NAME/DATE_TIME

groups (metakd list GROUP describes the choices):
{groups}

key settings:
  task.ways task.shots task.queries       the tasks; task.train_ways ... if training's differ
  task.meta_batch meta_train.iterations   tasks in a meta-iteration, number of meta-iterations
  meta_train.lr algorithm.inner_lr algorithm.inner_steps
  pretrain.epochs warmstart.epochs finetune.epochs      GROUP=none switches a stage off
  distill.kd_weight distill.temperature distill.teacher_mode
  teacher.width student.width teacher.checkpoint student.checkpoint
  evaluate.tasks evaluate.shots=[1,5]     number of test tasks, further shots
  resume=RUN                              resume a stopped run, with the same result; changed
                                          settings are refused unless resume_changed=true
  sweep.jobs=N                            with -m: jobs at a time (1), which share cores and GPUs;
                                          resume=SWEEP_FOLDER runs the remaining jobs
  sweep.trials sweep.sampler sweep.pruner sweep.objectives      of a search (-m sweep=search)
  replay=RUN                              locate the non-finite value that a run failed with
  checkpoint_minutes checkpoint_steps     how often a run is saved within a stage
  seed device precision name data_root cache_root output_root hydra.run.dir
  (all of them, with their values: metakd train --cfg job)

options:
  --config-dir, -cd DIR    a folder of your own configuration files, laid out as conf/ is
  --cfg, -c job|hydra|all  show the configuration and exit; --package/-p KEY: a part of it,
                           --resolve: with its references resolved
  --info, -i [WHAT]        show where it comes from: defaults, defaults-tree, searchpath, ...
  --multirun, -m           run every combination of comma-separated values
  --hydra-help             Hydra's own help
  --shell-completion, -sc  for shells; see metakd completion --help

Exit status: 0 done, 2 invalid input, 1 any other error, 130 interrupted."""

INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")


def train_parser() -> Parser:
    """Return the parser of this command's options."""
    parser = Parser("train", HELP)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--config-dir", "-cd")
    parser.add_argument("--cfg", "-c", choices=("job", "hydra", "all"))
    parser.add_argument("--package", "-p")
    parser.add_argument("--resolve", action="store_true")
    parser.add_argument("--info", "-i", nargs="?", const="all", choices=INFO)
    parser.add_argument("--multirun", "-m", action="store_true")
    parser.add_argument("--hydra-help", action="store_true")
    parser.add_argument("--shell-completion", "-sc", action="store_true")
    return parser


def run(arguments: Sequence[str]) -> int:
    """Train, or show; return the exit status."""
    asked = train_parser().read(arguments)
    if asked.help:
        print(help_text(Choices(user_folder(asked.config_dir))))
        return 0
    showing = [
        option
        for option, given in (
            ("--cfg", asked.cfg),
            ("--info", asked.info),
            ("--hydra-help", asked.hydra_help),
            ("--shell-completion", asked.shell_completion),
        )
        if given
    ]
    if len(showing) + asked.multirun > 1:
        raise UserError(f"{' and '.join(showing)}: these and --multirun are mutually exclusive")
    if (asked.resolve or asked.package) and not asked.cfg:
        raise UserError("--resolve and --package belong to --cfg, for instance --cfg job --resolve")
    if showing:
        from metakd.cli.show import show

        return show(asked)
    if asked.multirun or "hydra.mode=MULTIRUN" in asked.overrides:
        from metakd.cli.sweep import sweep

        refuse("several runs", "type metakd train -m without it; sweep.jobs=N runs N at a time")
        return sweep(asked.overrides, asked.config_dir)
    run, changed, overrides = resumed(asked.overrides)
    if run is not None and (run / "sweep.json").is_file():
        from metakd.cli.sweep import complete

        refuse("several runs", "resume a multirun without it")
        return complete(run, overrides, asked.config_dir, changed)
    for word in asked.overrides:
        if word.startswith(("sweep.", "sweep=")):
            raise UserError(f"{word}: belongs to a multirun; type -m, too")
    failed, typed = replayed(asked.overrides)
    if failed is not None:
        from metakd import pipeline

        refuse("replay", "type metakd train replay=RUN without it")
        pipeline.replay(failed, typed, asked.config_dir)
        return 0
    run, changed, overrides = resumed(typed)
    if run is not None:
        return _resume(run, changed, overrides, asked.config_dir)
    return _train(overrides, asked.config_dir)


def resumed(overrides: Sequence[str]) -> tuple[Path | None, bool, list[str]]:
    """Return the run that `resume=` names, whether `resume_changed=true` was typed, and the rest.

    Raises:
        UserError: `resume` without a run, `resume_changed` without `resume` or with another value.
    """
    run, changed, rest = None, None, []
    for word in overrides:
        key, equals, value = word.partition("=")
        if equals and key == "resume":
            run = _run_folder(key, value)
        elif equals and key == "resume_changed":
            if value.lower() not in ("true", "false"):
                raise UserError(f"resume_changed={value}: expected true or false")
            changed = value.lower() == "true"
        else:
            rest.append(word)
    if run is None and changed is not None:
        raise UserError("resume_changed goes with resume=RUN; type that, too")
    return run, bool(changed), rest


def replayed(overrides: Sequence[str]) -> tuple[Path | None, list[str]]:
    """Return the run that `replay=` names, and the other words."""
    named = [w for w in overrides if w.startswith("replay=")]
    rest = [w for w in overrides if w not in named]
    return (_run_folder("replay", named[-1].partition("=")[2]) if named else None), rest


def _run_folder(key: str, value: str) -> Path | None:
    """Return the folder that was typed, as a shell leaves it or in quotes; None for null."""
    plain = value[1:-1] if len(value) > 1 and value[0] == value[-1] in "'\"" else value
    if not plain:
        raise UserError(f"{key}=: name a run's folder, such as outputs/NAME/DATE_TIME")
    return None if plain == "null" else Path(plain).expanduser()


def _resume(run: Path, changed: bool, overrides: Sequence[str], config_dir: str | None) -> int:
    from metakd.config.overrides import parse

    for override in parse(overrides):
        if override.key_or_group == "plugins":
            modules = override.value()
            look_here_for([str(m) for m in modules] if isinstance(modules, list) else [])
    with joined() as group:
        from metakd import pipeline

        pipeline.resume(run, overrides, config_dir, changed=changed, group=group)
    return 0


def help_text(choices: Choices) -> str:
    """Return the help with the groups and choices that there are."""
    lines = []
    for group in choices.groups():
        names = list(choices.of(group))
        shown = ", ".join(names[:11]) + (", ..." if len(names) > 11 else "")
        if names:
            lines.append(f"  {group:<11}{shown}")
    return HELP.replace("{groups}", "\n".join(lines))


def _train(overrides: Sequence[str], config_dir: str | None) -> int:
    from metakd.config.checks import check
    from metakd.config.compose import Composed, compose

    def checked() -> Composed:
        composed = compose(overrides, config_dir)
        check(composed.config)
        return composed

    with joined() as group:
        composed = group.together(checked)
        if group.rank == 0:
            # Standard error is only for errors until the run begins.
            from metakd.tracking.progress import Progress

            Progress(stream=sys.stdout).say(opening(composed.config))
        look_here_for(composed.config.plugins)
        from metakd import pipeline

        pipeline.train(composed, group=group)
    return 0


def opening(config: Config) -> str:
    """Return the first line of a run, printed before torch is loaded.

    Such as ``metakd 0.1.0: glyphs, protonet, student conv4_small taught by conv4``.
    """
    line = f"metakd {__version__}: {config.dataset.name}, {config.algorithm.name}"
    line += f", student {config.student.model or config.student.name}"
    if config.distill.supports.uses_teacher or config.algorithm.supports.teaches:
        teacher = config.teacher.model or config.teacher.name
        line += f" taught by {teacher} ({config.distill.name})"
    return f"{line}\nloading torch …"
