"""Hydra's loader, which merges the same files once for a process.

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
from pathlib import Path
from typing import Any

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.config_store import ConfigStore
from hydra.core.default_element import ResultDefault
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import setup_globals
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from metakd.config.brings import KEY
from metakd.config.declared import known_groups, known_settings
from metakd.config.locate import ALIASES, Choices, conf_folder
from metakd.config.permitted import checked_files, read_config_file, refuse_foreign
from metakd.config.renamed import renamed
from metakd.config.schema import Config
from metakd.errors import UserError

__all__ = ["CONFIG_NAME", "Loader", "composing", "merged", "plain_settings", "search_path"]

CONFIG_NAME = "config"
RUN_FOLDERS = ("hydra.run.dir", "hydra.sweep.dir")


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
    store.repo = dict(repo)
    store.store(name="metakd_schema", node=Config)
    for group in ALIASES:
        store.repo.pop(group, None)
        for name, file in choices.of(group).items():
            store.store(name=name, node=plain_settings(file, group, plugins)[0], group=group)
    try:
        with checked_files(plugins):
            yield
    finally:
        store.repo = repo
        version.VersionBase.instance().version_base = base


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


class Loader(ConfigLoaderImpl):
    """Hydra's loader, with settings that stand between conf/config.yaml and an experiment."""

    def __init__(self, folder: Path | None, layer: Mapping[str, Any]) -> None:
        super().__init__(config_search_path=search_path(folder))
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


@functools.lru_cache(maxsize=256)
def _choices(lines: tuple[str, ...], layer: str, state: object) -> bytes:
    """Return a pickled composition; copies are made five times as fast from it as by deepcopy."""
    with composing(Choices()):
        loader = Loader(None, json.loads(layer))
        return pickle.dumps(loader.load_configuration(CONFIG_NAME, [*lines], RunMode.RUN))


def _state(folder: Path) -> frozenset[tuple[str, int, int, int]]:
    """Return what tells whether a file of a folder is another than before."""
    found = set()
    for root, _, names in os.walk(folder):
        for name in names:
            status = os.stat(os.path.join(root, name))
            found.add((f"{root}/{name}", status.st_mtime_ns, status.st_size, status.st_ino))
    return frozenset(found)
