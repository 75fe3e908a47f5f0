"""`metakd train -m`: every combination of values, checked together, run one after the other."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from metakd.cli.plugins import look_here_for
from metakd.config.checks import check
from metakd.config.compose import CONFIG_NAME, Composed, compose, typed_plugins
from metakd.config.locate import Choices, user_folder
from metakd.config.overrides import check_override, parse
from metakd.config.permitted import refuse_foreign
from metakd.errors import UserError

__all__ = ["combinations", "sweep"]

FOLDERS = ("hydra.sweep.dir", "hydra.mode")
"""Settings of the sweep itself, which its jobs do not get."""


def combinations(overrides: Sequence[str]) -> tuple[list[list[str]], list[str]]:
    """Return the overrides of every job, and those of the sweep itself.

    Raises:
        UserError: a sweep that cannot be written out as a list of jobs.
    """
    parsed = parse(overrides, sweeps=True)
    own = [o for o in parsed if o.key_or_group in FOLDERS]
    jobs = [o for o in parsed if o.key_or_group not in FOLDERS]
    for override in parsed:
        if override.key_or_group in ("hydra.sweep.subdir", "hydra.run.dir"):
            raise UserError(
                f"{override.key_or_group}: jobs are numbered folders of hydra.sweep.dir; set that"
            )
    try:
        split = BasicSweeper.split_arguments(jobs, None)[0]
    except HydraException as error:
        raise UserError(f"-m: {error}; name a sweeper that can with hydra/sweeper=") from error
    return split, [o.input_line or "" for o in own]


def sweep(overrides: Sequence[str], config_dir: str | None = None) -> int:
    """Run every combination; return 0, or 1 if a job failed.

    All of them are composed and checked first. Each runs in a process of its own, so that no
    state leaks from one to the next.
    """
    parsed = parse(overrides, sweeps=True)
    if any(o.key_or_group in ("hydra/launcher", "hydra/sweeper") for o in parsed):
        return _by_hydra(parsed, config_dir)
    jobs, own = combinations(overrides)
    composed = []
    for job in jobs:
        try:
            composed.append(compose([*job, *own], config_dir))
            check(composed[-1].config)
        except UserError as error:
            raise UserError(f"{error} (in the combination {' '.join(job)})") from error
    folder = _folder(composed[0])
    failed = 0
    for number, job in enumerate(jobs):
        print(f"[{number + 1}/{len(jobs)}] {' '.join(job)}", flush=True)
        status = _run(job, folder / str(number), config_dir)
        if status == 130:
            raise KeyboardInterrupt
        failed += status != 0
        print(f"[{number + 1}/{len(jobs)}] {'failed, status ' + str(status) if status else 'done'}")
    print(f"{folder}: {len(jobs) - failed} of {len(jobs)} jobs done, {failed} failed")
    return 1 if failed else 0


def _folder(first: Composed) -> Path:
    """Make the sweep's folder; unless it was typed, one that nobody else has."""
    wanted = first.sweep_dir
    try:
        if "hydra.sweep.dir" in first.typed:
            wanted.mkdir(parents=True, exist_ok=True)
            return wanted
        wanted.parent.mkdir(parents=True, exist_ok=True)
        for number in range(1000):
            folder = wanted if number == 0 else wanted.with_name(f"{wanted.name}_{number}")
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
                return folder
    except OSError as error:
        raise UserError(f"{wanted}: cannot be made: {error.strerror}") from error
    raise UserError(f"{wanted}: exists already, and so do its numbered neighbours")


def _run(job: list[str], folder: Path, config_dir: str | None) -> int:
    own = [] if config_dir is None else ["--config-dir", config_dir]
    command = [sys.executable, "-m", "metakd", "train", *job, f"hydra.run.dir={folder}", *own]
    process = subprocess.Popen(command)
    try:
        return process.wait()
    except KeyboardInterrupt as stop:
        if stop.args:  # SIGTERM reached us alone (see cli._interrupt), Ctrl-C the job, too
            process.terminate()
        process.wait()  # it writes its checkpoint
        raise


def _by_hydra(parsed: Sequence[Override], config_dir: str | None) -> int:
    """Leave the sweep to Hydra's launcher and sweeper plugins."""
    from metakd.cli.show import hydra_application

    folder = user_folder(config_dir)
    choices = Choices(folder)
    lines = [
        (o.input_line or "") if o.is_sweep_override() else check_override(o, choices)
        for o in parsed
    ]
    plugins = typed_plugins(parsed)
    words = [*lines, "hydra.mode=MULTIRUN"]
    with hydra_application(folder, plugins) as hydra:
        config = hydra.compose_config(
            CONFIG_NAME, words, run_mode=RunMode.MULTIRUN, with_log_configuration=False
        )
        refuse_foreign(config.hydra, plugins)  # before Hydra calls any of it
        hydra.multirun(CONFIG_NAME, _Job(folder), words)
    return 0


class _Job:
    """Hydra's task function: one job, in the folder that Hydra made for it."""

    def __init__(self, config_dir: Path | None) -> None:
        self.config_dir = config_dir

    def __call__(self, config: DictConfig) -> float | None:
        hydra = HydraConfig.get()
        task = OmegaConf.to_container(hydra.overrides.task)
        assert isinstance(task, list)
        folder = f"hydra.run.dir={hydra.runtime.output_dir}"
        composed = compose([*(str(o) for o in task), folder], self.config_dir)
        check(composed.config)
        look_here_for(composed.config.plugins)
        from metakd import pipeline

        results = pipeline.train(composed)
        fewshot = results.get("student", {}).get("fewshot", {})
        # What a sweeper that searches maximises (accuracy) or minimises (mse).
        return fewshot.get("accuracy", fewshot.get("mse"))
