"""`metakd train -m`: every combination of values, by MetaKD's own sweep or a Hydra plugin."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from metakd.cli.parser import look_here_for
from metakd.config.checks import check
from metakd.config.compose import compose, typed_plugins
from metakd.config.composition import CONFIG_NAME
from metakd.config.locate import Choices, user_folder
from metakd.config.overrides import check_override, parse
from metakd.config.permitted import refuse_foreign
from metakd.errors import RunError, UserError
from metakd.sweeps.plan import asked_of, combinations, composed_jobs
from metakd.sweeps.recipe import Recipe, chosen
from metakd.sweeps.run import go_on, start
from metakd.sweeps.state import Sweep

__all__ = ["combinations", "complete", "expanded", "sweep"]


def complete(
    folder: Path, words: Sequence[str], config_dir: str | None = None, changed: bool = False
) -> int:
    """Resume the multirun or search in `folder`: `metakd train resume=FOLDER`.

    Args:
        folder: holds sweep.json.
        words: what else was typed.
        config_dir: the user's own configuration folder.
        changed: `resume_changed=true` was typed.

    Returns:
        the exit status: 0, or 1 if a job failed.

    Raises:
        UserError: as `metakd.sweeps.run.go_on`.
    """
    if Sweep.load(folder).search is None:
        return go_on(folder, words, config_dir, changed)
    if changed:
        raise UserError(
            "resume_changed=true: trials of a search are compared with one another, so what is "
            "left of it cannot be changed"
        )
    from metakd.searching import run

    return run.go_on(folder, words, config_dir)


def expanded(
    overrides: Sequence[str], config_dir: str | None = None
) -> tuple[Recipe | None, list[str]]:
    """Return the recipe of a search, if `sweep=NAME` names one, and the words.

    The settings and values of any other recipe stand among the words; what is typed wins.

    Raises:
        UserError: there is no such recipe, or it cannot be used.
    """
    recipe, words = chosen(overrides, config_dir)
    if recipe is None or recipe.space is not None:
        return recipe, words
    typed = [o.key_or_group for o in parse(asked_of(words).rest, sweeps=True)]
    return None, [*recipe.words(typed), *words]


def sweep(overrides: Sequence[str], config_dir: str | None = None) -> int:
    """Run every combination; return 0, or 1 if a job failed.

    All of them are composed and checked first. Each runs in a process of its own, so that no
    state leaks from one to the next.
    """
    recipe, overrides = expanded(overrides, config_dir)
    if recipe is not None:
        from metakd.searching import run

        return run.start(recipe, overrides, config_dir)
    asked = asked_of(overrides)
    parsed = parse(asked.rest, sweeps=True)
    plugins = [o for o in parsed if o.key_or_group in ("hydra/launcher", "hydra/sweeper")]
    if not plugins:
        return start(overrides, config_dir)
    if asked.parallel is not None or asked.changed:
        own = "sweep.jobs" if asked.parallel is not None else "resume_changed"
        raise UserError(
            f"{own} is for MetaKD's own multirun; with {plugins[0].input_line} Hydra's plugin "
            "decides how jobs run"
        )
    return _by_hydra(parsed, config_dir)


def _by_hydra(parsed: Sequence[Override], config_dir: str | None) -> int:
    """Run the sweep with Hydra's launcher and sweeper plugins."""
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
        if not any(o.key_or_group == "hydra/sweeper" for o in parsed):
            _check_all(lines, config_dir)
        hydra.multirun(CONFIG_NAME, _Job(folder), words)
    return 0


def _check_all(lines: Sequence[str], config_dir: str | None) -> None:
    """Compose and check every combination before the launcher starts the first one.

    A Hydra sweeper chooses its jobs as it runs: each is checked when it starts.

    Raises:
        UserError: the first combination that is impossible.
    """
    of_jobs = [line for line in lines if not line.startswith(("hydra/", "hydra.launcher"))]
    jobs, own = combinations(of_jobs)
    composed_jobs(jobs, own, config_dir)


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

        try:
            results = pipeline.train(composed)
        except Exception as error:  # any exception of the job
            # It is pickled to the process that launched the jobs: only its message surely can be.
            kind = "" if isinstance(error, UserError | RunError) else f"{type(error).__name__}: "
            words = " ".join([kind + str(error), *getattr(error, "__notes__", ())])
            raise RunError(f"job {hydra.runtime.output_dir}: {words}") from None
        student = results.get("student", {})
        head = student.get("whole", student.get("fewshot", {}))
        # What a sweeper that searches maximises (accuracy) or minimises (mse).
        return head.get("accuracy", head.get("mse"))
