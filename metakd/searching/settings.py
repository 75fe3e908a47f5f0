"""Settings of a search (`sweep.trials`, `sweep.sampler` …), from a file and from overrides."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from metakd.config.declared import declarations
from metakd.config.overrides import parse
from metakd.config.schema import SweepConfig
from metakd.config.suggest import expected
from metakd.errors import UserError, nearest

__all__ = ["DIRECTIONS", "MEASURES", "NAMES", "read_settings", "split_typed"]

MEASURES = ("accuracy", "mse")
"""Objectives that are measured on the validation classes, and that pruning uses."""

KNOWN = declarations(SweepConfig, "sweep.")
"""What the schema declares of each setting of a search."""

DIRECTIONS: dict[str, Literal["maximize", "minimize"]] = {
    name: "maximize" if name == "accuracy" else "minimize"
    for name in KNOWN["sweep.objectives"].words
}
"""Whether larger or smaller is better, by objective."""

NAMES = tuple(field.name for field in dataclasses.fields(SweepConfig))
TRIALS = 30
"""Default number of trials."""


def split_typed(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separate settings of the sweep (`sweep.KEY=VALUE`) from the other words."""
    own = [word for word in words if word.startswith("sweep.")]
    return own, [word for word in words if not word.startswith("sweep.")]


def read_settings(
    recorded: Mapping[str, Any], typed: Sequence[str] = (), where: str = "sweep"
) -> SweepConfig:
    """Return the settings of a search, all of them checked; `auto` and null are replaced.

    Args:
        recorded: those of a file, or of a resumed search.
        typed: `sweep.KEY=VALUE`, which take precedence.
        where: the file, for messages.

    Raises:
        UserError: an unknown setting, an invalid value, or pruning that Optuna cannot do.
    """
    given = {str(key): (value, f"{where}: search: {key}: ") for key, value in recorded.items()}
    for override in parse(typed):
        key = override.key_or_group.removeprefix("sweep.")
        given[key] = (override.value(), "")
    types = typing.get_type_hints(SweepConfig)
    node = OmegaConf.structured(SweepConfig)
    for key, (value, said) in given.items():
        if key not in NAMES:
            names = [f"sweep.{name}" for name in NAMES]
            raise UserError(f"{said}sweep.{key}: no such setting.{nearest(f'sweep.{key}', names)}")
        try:
            OmegaConf.update(node, key, value)
        except OmegaConfBaseException as error:
            raise UserError(
                f"{said}sweep.{key}={value}: expected {expected(types[key])}"
            ) from error
    settings = typing.cast(SweepConfig, OmegaConf.to_object(node))
    for key in NAMES:
        said = given.get(key, (None, ""))[1]
        KNOWN[f"sweep.{key}"].check(getattr(settings, key), f"{said}sweep.{key}")
    _check_objectives(settings)
    return settings


def _check_objectives(settings: SweepConfig) -> None:
    objectives = settings.objectives
    if not objectives or len(set(objectives)) < len(objectives):
        raise UserError(
            f"sweep.objectives=[{','.join(objectives)}]: expected one or more different ones"
        )
    prunable = len(objectives) == 1 and objectives[0] in MEASURES
    if settings.pruner == "auto":
        settings.pruner = "median" if prunable else "none"
    if settings.pruner != "none" and not prunable:
        why = (
            "Optuna can prune with one objective only"
            if len(objectives) > 1
            else "pruning uses validation results, which are not the objective"
        )
        raise UserError(f"sweep.pruner={settings.pruner}: {why}; type sweep.pruner=none")
    if settings.trials is None and settings.sampler != "grid":
        settings.trials = TRIALS
