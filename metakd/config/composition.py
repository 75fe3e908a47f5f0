"""Hydra's composition of the files under conf/, with what the choices bring along.

To merge some seventy files takes most of the time of a composition, and one process composes the
same choices again and again: a multirun, a search, a notebook. What choices of the built-in files
give is kept, as long as no file changes; what is typed as settings is applied to a copy.
"""

from __future__ import annotations

import copy
import functools
import json
import os
import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.config_store import ConfigNode, ConfigStore
from hydra.core.default_element import ResultDefault
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import setup_globals
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from metakd.config.brings import KEY, Brought, as_word, bringing
from metakd.config.declared import known_groups, known_settings
from metakd.config.locate import ALIASES, Choices, conf_folder
from metakd.config.permitted import checked_files, read_config_file, refuse_foreign
from metakd.config.renamed import renamed
from metakd.config.schema import Config
from metakd.config.suggest import flattened
from metakd.errors import UserError

__all__ = [
    "CONFIG_NAME",
    "Loaded",
    "Loader",
    "complete",
    "composing",
    "load",
    "merged",
    "plain_settings",
    "search_path",
]

CONFIG_NAME = "config"
RUN_FOLDERS = ("hydra.run.dir", "hydra.sweep.dir")

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


def search_path(config_dir: Path | None) -> ConfigSearchPath:
    """Return where Hydra looks: the user's own folder, if any, before the built-in one."""
    path = create_config_search_path(str(conf_folder()))
    if config_dir is not None:
        path.prepend(
            provider="command-line",
            path=f"file://{config_dir}",
            anchor=SearchPathQuery(provider="main"),
        )
    return path


@contextmanager
def composing(choices: Choices, plugins: Sequence[str] = ()) -> Iterator[None]:
    """Lend Hydra the schema and the borrowed groups; give its global state back afterwards.

    Args:
        choices: what the folders offer.
        plugins: modules that files may name, as `typed_plugins` returns them.
    """
    store = ConfigStore.instance()
    repo, base = store.repo, version.getbase()
    setup_globals()
    version.setbase("1.3")
    built_in = not plugins and choices.folders == [conf_folder()]
    lent = _built_in(_state(conf_folder())) if built_in else _lent(choices, plugins)
    store.repo = {**repo, **lent}
    try:
        with checked_files(plugins):
            yield
    finally:
        store.repo = repo
        version.VersionBase.instance().version_base = base


def _lent(choices: Choices, plugins: Sequence[str]) -> dict[str, Any]:
    """Return the schema and the borrowed groups as Hydra's store holds them."""

    def node(name: str, content: Any, group: str | None) -> ConfigNode:
        return ConfigNode(f"{name}.yaml", OmegaConf.structured(content), group, None, None)

    found: dict[str, Any] = {"metakd_schema.yaml": node("metakd_schema", Config, None)}
    for group in ALIASES:
        found[group] = {
            f"{name}.yaml": node(name, plain_settings(file, group, plugins)[0], group)
            for name, file in choices.of(group).items()
        }
    return found


@functools.lru_cache(maxsize=4)
def _built_in(state: object) -> dict[str, Any]:
    """Return what the built-in files lend; Hydra copies what it takes from its store."""
    return _lent(Choices(), ())


def plain_settings(
    file: Path, group: str, plugins: Sequence[str] = ()
) -> tuple[dict[str, Any], list[str]]:
    """Return the settings that a file holds, and which of them it calls by old names.

    Args:
        file: of a choice, or a recorded configuration.
        group: of the choice; empty for a whole configuration.
        plugins: modules that it may name.

    Raises:
        UserError: it cannot be read, or holds something else.
    """
    content = read_config_file(file, plugins)
    if not isinstance(content, dict):
        raise UserError(f"{file}: holds no settings; write them as 'key: value' lines")
    try:
        found, old = renamed(content, group)
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    return {str(k): v for k, v in found.items() if k != KEY}, old


class Files(ConfigRepository):
    """The files and the schema that Hydra merges; with a memory, each is read once."""

    def __init__(self, path: ConfigSearchPath, memory: dict[str, bytes] | None) -> None:
        super().__init__(path)
        self._memory = memory

    def __deepcopy__(self, _: object) -> Files:
        """Copy the list of sources alone: Hydra exchanges that, and would copy its whole store."""
        return copy.copy(self)

    def load_config(self, config_path: str) -> ConfigResult | None:
        if self._memory is None:
            return super().load_config(config_path)
        if config_path not in self._memory:
            self._memory[config_path] = pickle.dumps(super().load_config(config_path))
        found: ConfigResult | None = pickle.loads(self._memory[config_path])
        return found


class Loader(ConfigLoaderImpl):
    """Hydra's loader, with settings that stand between conf/config.yaml and an experiment."""

    def __init__(
        self, folder: Path | None, layer: Mapping[str, Any], memory: dict[str, bytes] | None = None
    ) -> None:
        super().__init__(config_search_path=search_path(folder))
        self.repository = Files(self.config_search_path, memory)
        self._layer = layer

    def _load_single_config(self, default: ResultDefault, repo: Any) -> ConfigResult:
        found = super()._load_single_config(default, repo)
        if not (default.primary and self._layer):
            return found
        found = copy.copy(found)
        found.config = OmegaConf.merge(found.config, OmegaConf.create(dict(self._layer)))
        return found


def merged(
    lines: Sequence[str],
    folder: Path | None,
    choices: Choices,
    plugins: Sequence[str],
    layer: Mapping[str, Any],
) -> DictConfig:
    """Return what Hydra loads for a run.

    Args:
        lines: overrides, as Hydra is to see them.
        folder: the user's own configuration folder; with one, everything is merged anew.
        choices: what the folders offer.
        plugins: modules that files may name.
        layer: settings between conf/config.yaml and an experiment.

    Raises:
        UserError: a file names what is not permitted.
        HydraException: as Hydra raises it, and OmegaConfBaseException.
    """
    chosen = [line for line in lines if not _is_setting(line)]
    if folder is not None or any(line.lstrip("+~").startswith("hydra") for line in chosen):
        with composing(choices, plugins):
            loader = Loader(folder, layer)
            cfg = loader.load_configuration(CONFIG_NAME, [*lines], RunMode.RUN)
        refuse_foreign(cfg.hydra, plugins)
        return cfg
    cfg = pickle.loads(_choices(tuple(chosen), json.dumps(layer), _state(conf_folder())))
    parsed = OverridesParser.create().parse_overrides([*lines])
    typed = [o for o in parsed if _is_setting(str(o.input_line))]
    Loader._apply_overrides_to_config(typed, cfg)
    hydra = [o for o in parsed if o.is_hydra_override()]
    task = [o for o in parsed if not o.is_hydra_override()]
    cfg.hydra.overrides.hydra = [o.input_line for o in hydra]
    cfg.hydra.overrides.task = [o.input_line for o in task]
    cfg.hydra.runtime.cwd = os.getcwd()
    names = cfg.hydra.job.config.override_dirname
    cfg.hydra.job.override_dirname = get_overrides_dirname(
        task, kv_sep=names.kv_sep, item_sep=names.item_sep, exclude_keys=names.exclude_keys
    )
    return cfg


def _is_setting(line: str) -> bool:
    """Tell whether an override only gives a value, which decides on no file."""
    key = line.partition("=")[0].lstrip("+")
    group, dot, _ = key.partition(".")
    return key in RUN_FOLDERS or (group in known_groups() if dot else key in known_settings())


@functools.lru_cache(maxsize=4)
def _memory(state: object) -> dict[str, bytes]:
    """Return what of the built-in files, in one state, has been read; to be filled."""
    return {}


@functools.lru_cache(maxsize=256)
def _choices(lines: tuple[str, ...], layer: str, state: object) -> bytes:
    """Return a pickled composition; copies are made five times as fast from it as by deepcopy."""
    with composing(Choices()):
        loader = Loader(None, json.loads(layer), _memory(state))
        return pickle.dumps(loader.load_configuration(CONFIG_NAME, [*lines], RunMode.RUN))


def _state(folder: Path) -> frozenset[tuple[str, int, int, int]]:
    """Return what tells whether a file of a folder is another than before."""
    found = set()
    for root, _, names in os.walk(folder):
        for name in names:
            status = os.stat(os.path.join(root, name))
            found.add((f"{root}/{name}", status.st_mtime_ns, status.st_size, status.st_ino))
    return frozenset(found)


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

    def composed(brought: Brought) -> tuple[DictConfig, dict[str, str]]:
        chosen = [f"{group}={choice}" for group, (choice, _) in brought.choices.items()]
        cfg = merged([*lines, *chosen], folder, choices, plugins, brought.layer())
        picked = {str(k): str(v) for k, v in cfg.hydra.runtime.choices.items()}
        complete(cfg, picked)
        return cfg, picked

    words: dict[str, tuple[str, ...]] = {}
    with _one_line(folder):
        cfg, picked = composed(Brought())
        if bringing(picked, (), choices):
            before, typed = cfg, {line.partition("=")[0].lstrip("+") for line in lines}
            decided = set(typed)
            if picked.get("experiment", "None") != "None":  # what it chose is decided, too
                with composing(choices, plugins):
                    loader = Loader(folder, {})
                    made = loader.compute_defaults_list(CONFIG_NAME, [*lines], RunMode.RUN)
                decided |= {str(k).partition("@")[0] for k in made.overrides.override_choices}
            found = bringing(picked, decided, choices)
            cfg, picked = composed(found)
            fitting = found.without_followers({key: _value(cfg, key) for key in found.settings})
            if fitting != found:
                cfg, picked = composed(fitting)
            for group, (choice, by) in fitting.choices.items():
                if str(before.hydra.runtime.choices[group]) != choice:
                    words[by] = (*words.get(by, ()), f"{group}={choice}")
            for key, (value, by) in fitting.settings.items():
                now = _value(cfg, key)
                if key not in typed and now == value and _value(before, key) != now:
                    words[by] = (*words.get(by, ()), f"{key}={as_word(value)}")
        run_dir = Path(os.path.abspath(cfg.hydra.run.dir))
        sweep_dir = Path(os.path.abspath(cfg.hydra.sweep.dir))
    with open_dict(cfg):
        del cfg["hydra"]
    return Loaded(cfg, picked, run_dir, sweep_dir, words)


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
