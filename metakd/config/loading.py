"""Hydra's composition of the files under conf/, with what the choices bring along."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from metakd.config.brings import Brought, as_word, bringing
from metakd.config.composition import CONFIG_NAME, Loader, composing, merged
from metakd.config.declared import known_groups
from metakd.config.locate import Choices
from metakd.config.suggest import flattened
from metakd.errors import UserError

__all__ = ["Loaded", "complete", "load"]

MISSHAPEN = (ValueError, TypeError, AttributeError, LookupError, AssertionError)
"""What Hydra raises for a file whose parts have another shape than it counts on."""


@dataclass(frozen=True)
class Loaded:
    """What Hydra made of a command line.

    Attributes:
        cfg: the job's configuration.
        picked: the choice made in each group.
        run_dir: folder of a run.
        sweep_dir: folder of a multirun.
        brought: by who brings it (`algorithm=reptile`), what it brought, as it could be typed.
    """

    cfg: DictConfig
    picked: Mapping[str, str]
    run_dir: Path
    sweep_dir: Path
    brought: Mapping[str, tuple[str, ...]]


def load(
    lines: Sequence[str], folder: Path | None, choices: Choices, plugins: Sequence[str]
) -> Loaded:
    """Load the files, and load them again with what the choices bring, if they bring anything.

    Args:
        lines: overrides, as Hydra is to see them.
        folder: the user's own configuration folder.
        choices: what the folders offer.
        plugins: modules that files may name.

    Raises:
        UserError: one line for whatever Hydra finds wrong.
    """
    with _one_line(folder):
        cfg, picked = _composed(lines, folder, choices, plugins)
    if not bringing(picked, (), choices):
        return _parted(cfg, picked, {})
    typed = {line.partition("=")[0].lstrip("+") for line in lines}
    with _one_line(folder):
        found = bringing(
            picked, typed | _of_experiment(lines, folder, choices, plugins, picked), choices
        )
        before = cfg
        cfg, picked = _composed(lines, folder, choices, plugins, found)
        fitting = found.without_followers({key: _value(cfg, key) for key in found.settings})
        if fitting != found:
            cfg, picked = _composed(lines, folder, choices, plugins, fitting)
    words: dict[str, tuple[str, ...]] = {}
    for group, (choice, by) in fitting.choices.items():
        if str(before.hydra.runtime.choices[group]) != choice:
            words[by] = (*words.get(by, ()), f"{group}={choice}")
    for key, (value, by) in fitting.settings.items():
        now = _value(cfg, key)
        if key not in typed and now == value and _value(before, key) != now:
            words[by] = (*words.get(by, ()), f"{key}={as_word(value)}")
    return _parted(cfg, picked, words)


def _composed(
    lines: Sequence[str],
    folder: Path | None,
    choices: Choices,
    plugins: Sequence[str],
    brought: Brought | None = None,
) -> tuple[DictConfig, dict[str, str]]:
    brought = brought or Brought()
    chosen = [f"{group}={choice}" for group, (choice, _) in brought.choices.items()]
    cfg = merged([*lines, *chosen], folder, choices, plugins, brought.layer())
    picked = {str(k): str(v) for k, v in cfg.hydra.runtime.choices.items()}
    complete(cfg, picked)
    return cfg, picked


def _of_experiment(
    lines: Sequence[str],
    folder: Path | None,
    choices: Choices,
    plugins: Sequence[str],
    picked: Mapping[str, str],
) -> set[str]:
    """Return the groups whose choice an experiment made."""
    if picked.get("experiment", "None") == "None":
        return set()
    with composing(choices, plugins):
        found = Loader(folder, {}).compute_defaults_list(CONFIG_NAME, [*lines], RunMode.RUN)
    return {str(key).partition("@")[0] for key in found.overrides.override_choices}


def _parted(
    cfg: DictConfig, picked: Mapping[str, str], brought: Mapping[str, tuple[str, ...]]
) -> Loaded:
    with _one_line(None):
        run_dir = Path(os.path.abspath(cfg.hydra.run.dir))
        sweep_dir = Path(os.path.abspath(cfg.hydra.sweep.dir))
    with open_dict(cfg):
        del cfg["hydra"]
    return Loaded(cfg, picked, run_dir, sweep_dir, brought)


def _value(cfg: DictConfig, key: str) -> Any:
    value = OmegaConf.select(cfg, key)
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


@contextmanager
def _one_line(folder: Path | None) -> Iterator[None]:
    """Turn whatever Hydra raises into one line."""
    try:
        yield
    except RecursionError:
        raise UserError("the configuration refers to itself, or is nested too deeply") from None
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        raise flattened(error) from error
    except UserError:
        raise
    except MISSHAPEN as error:
        if folder is None:
            raise  # of the built-in files: a mistake of ours
        raise UserError(f"{folder}: {flattened(error)}") from error


def complete(cfg: DictConfig, picked: Mapping[str, str]) -> None:
    """Give a choice the name of its file if it has none; refuse one that lacks something else.

    Raises:
        UserError: no choice was made in a group, or the chosen file lacks a value.
    """
    for group in known_groups():
        if group not in picked or OmegaConf.is_missing(cfg, group):
            raise UserError(f"{group}: no choice was made; type {group}=CHOICE")
        section = cfg[group]
        if OmegaConf.is_missing(section, "name"):
            section.name = picked[group]
        for key in section:
            if OmegaConf.is_missing(section, key):
                raise UserError(f"{group}={picked[group]}: '{key}' is missing in its file")
