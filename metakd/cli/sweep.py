"""`metakd train -m`: every combination of values, by MetaKD's own sweep or by a plugin of Hydra."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from metakd.cli.plugins import look_here_for
from metakd.config.checks import check
from metakd.config.compose import CONFIG_NAME, compose, typed_plugins
from metakd.config.locate import Choices, user_folder
from metakd.config.overrides import check_override, parse
from metakd.config.permitted import refuse_foreign
from metakd.errors import UserError
from metakd.sweeps.plan import asked_of, combinations
from metakd.sweeps.run import start

__all__ = ["combinations", "sweep"]


def sweep(overrides: Sequence[str], config_dir: str | None = None) -> int:
    """Run every combination; return 0, or 1 if a job failed.

    All of them are composed and checked first. Each runs in a process of its own, so that no
    state leaks from one to the next.
    """
    asked = asked_of(overrides)
    parsed = parse(asked.rest, sweeps=True)
    chosen = [o for o in parsed if o.key_or_group in ("hydra/launcher", "hydra/sweeper")]
    if not chosen:
        return start(overrides, config_dir)
    if asked.parallel is not None or asked.changed:
        own = "sweep.jobs" if asked.parallel is not None else "resume_changed"
        raise UserError(
            f"{own} is for MetaKD's own multirun; with {chosen[0].input_line} Hydra's plugin "
            "decides how jobs run"
        )
    return _by_hydra(parsed, config_dir)


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
