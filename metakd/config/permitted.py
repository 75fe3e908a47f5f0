"""What a configuration file may name: nothing that runs code which nobody permitted.

A file can be a stranger's: a shared experiment, a folder given with `--config-dir`, the recorded
configuration of a run. What it names is built in, or permitted by `plugins=[…]` as typed on this
command line. Hydra would call what it finds under `_target_`, and Python's logging what stands
under `()` and `class`, so these are looked at wherever they stand.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from metakd.config.brings import KEY
from metakd.config.declared import known_groups
from metakd.config.downloaded import IF_DOWNLOADED
from metakd.config.locate import ALIASES, Choices, conf_folder, content_of
from metakd.config.renamed import renamed
from metakd.errors import UserError
from metakd.plain_data import read_text

__all__ = [
    "built_in_targets",
    "checked_files",
    "read_config_file",
    "refuse_foreign",
    "refuse_references",
]

RESOLVERS = ("oc.env", "oc.select", "now", "hydra", "python_version")
"""Resolvers that give a word; `oc.decode` and `oc.create` could make up a whole dictionary."""

REFERENCE = re.compile(r"\$\{")
UNESCAPED = re.compile(r"(?<!\\)(?:\\\\)*\$\{")
"""Behind an even number of backslashes; an odd one makes it text."""
PLAIN = re.compile(r"\$\{\s*\.*[\w.@/\[\]-]+\s*\}")
RESOLVED = re.compile(r"\$\{\s*([\w.]+)\s*:")

HYDRA_TARGETS = re.compile(
    r"hydra\._internal\.core_plugins\.basic_\w+\.Basic(Launcher|Sweeper)"
    r"|hydra_plugins\.\w+(\.\w+)?\.[A-Z]\w*(Launcher|Sweeper)"
    r"|optuna\.samplers\.[A-Z]\w*Sampler"
)
CALLED = ("()", "class", "factory")
"""Keys under which Python's logging looks for something to call."""

HANDLERS = frozenset(
    {
        "logging.StreamHandler",
        "logging.FileHandler",
        "logging.NullHandler",
        "logging.Formatter",
        "logging.handlers.RotatingFileHandler",
        "colorlog.ColoredFormatter",
    }
)
STREAMS = frozenset({"ext://sys.stdout", "ext://sys.stderr"})


@functools.cache
def built_in_targets(group: str | None = None) -> frozenset[str]:
    """Return the classes that the built-in files of a group (None: of any) name."""
    choices = Choices()
    groups = [*choices.groups(), *ALIASES] if group is None else [group]
    found = set()
    for file in {f for g in groups for f in choices.of(g).values()}:
        content = content_of(file)
        if isinstance(content, dict) and "_target_" in content:
            found.add(str(content["_target_"]))
    return frozenset(found)


def read_config_file(file: Path, plugins: Sequence[str] = ()) -> Any:
    """Return the content of a configuration file, which names only what is permitted.

    Args:
        file: built in, the user's, or anybody's.
        plugins: modules that this command line permits.

    Raises:
        UserError: it cannot be read, or names something else.
    """
    content = content_of(file)
    if conf_folder() not in file.resolve().parents:
        _check(content, "", file, plugins)
    return content


def refuse_references(content: Mapping[Any, Any], file: Path) -> None:
    """Refuse `${…}` in a recorded configuration: what a run recorded, it had resolved.

    Raises:
        UserError: naming the setting.
    """
    for key, value in _leaves(content, ""):
        if isinstance(value, str) and UNESCAPED.search(value) and key != "name":
            raise UserError(
                f"{file}: {key}: '{_short(value)}' is not taken from a recorded configuration; "
                "write the value itself there, or type it"
            )


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Yield every value with its dotted key, and the keys of dictionaries as values, too."""
    if isinstance(value, Mapping):
        for name, child in value.items():
            yield f"{key}.{name}".lstrip("."), name
            yield from _leaves(child, f"{key}.{name}".lstrip("."))
    elif isinstance(value, list):
        for i, child in enumerate(value):
            yield from _leaves(child, f"{key}.{i}".lstrip("."))
    else:
        yield key, value


def _check(content: Any, key: str, file: Path, plugins: Sequence[str]) -> None:
    for where, value in _leaves(content, key):
        if not isinstance(value, str):
            continue
        leaf = where.rpartition(".")[2]
        if leaf in CALLED and value not in HANDLERS and value != leaf:
            _permit(value, f"{file}: {where}", plugins)
        elif value.startswith(("ext://", "cfg://")) and value not in STREAMS:
            _permit(value.partition("://")[2], f"{file}: {where}", plugins)
        elif value.startswith("pkg://"):
            _permit(value.partition("://")[2] + ".", f"{file}: {where}", plugins)
        _check_references(value, where, file)


def refuse_foreign(settings: DictConfig, plugins: Sequence[str] = (), key: str = "hydra") -> None:
    """Refuse a `_target_` of Hydra's own settings that is neither Hydra's nor permitted.

    Those of MetaKD's groups are looked at where they are used (`metakd.registry`).

    Args:
        settings: the composed `hydra`, references and all.
        plugins: modules that this command line permits.
        key: its name.

    Raises:
        UserError: naming the setting.
    """
    for name in map(str, settings):
        where = f"{key}.{name}"
        try:
            value = settings[name]
        except OmegaConfBaseException as error:
            if name == "_target_":
                raise UserError(f"{where}: cannot be resolved: {_short(str(error))}") from error
            continue
        if isinstance(value, DictConfig):
            refuse_foreign(value, plugins, where)
        elif isinstance(value, ListConfig):
            for i, item in enumerate(value):
                if isinstance(item, DictConfig):
                    refuse_foreign(item, plugins, f"{where}.{i}")
        elif name == "_target_" and not HYDRA_TARGETS.fullmatch(str(value)):
            _permit(str(value), where, plugins)


def _permit(value: str, where: str, plugins: Sequence[str]) -> None:
    if any(value.startswith(f"{plugin}.") for plugin in plugins):
        return
    module = value.rpartition(".")[0] or value
    raise UserError(
        f"{where} '{_short(value)}' is not one of ours; if you trust it, permit its module with "
        f"plugins=[{_short(module)}]"
    )


def _check_references(value: str, where: str, file: Path) -> None:
    for found in REFERENCE.finditer(value):
        rest = value[found.start() :]
        resolver = RESOLVED.match(rest)
        if resolver is not None and resolver.group(1) in RESOLVERS:
            continue
        if PLAIN.match(rest) is None:
            raise UserError(
                f"{file}: {where}: '{_short(value)}' cannot be used; what a file may hold is "
                f"${{SETTING}} and the resolvers {', '.join(RESOLVERS)}"
            )


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 60 else f"{flat[:59]}…"


def _with_new_names(loaded: ConfigResult, group: str, file: Path) -> Any:
    """Return what a file says under the names that settings have now."""
    if not isinstance(loaded.config, DictConfig):
        return loaded.config
    of_group = group in known_groups() and loaded.header.get("package") in (None, group)
    written = OmegaConf.to_container(loaded.config)
    assert isinstance(written, dict)
    try:
        content, old = renamed(written, group if of_group else "")
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    return OmegaConf.create(content) if old else loaded.config


@contextmanager
def checked_files(plugins: Sequence[str] = ()) -> Iterator[None]:
    """Let every file that Hydra loads within the block pass `read_config_file` first."""

    class Checked(FileConfigSource):
        def load_config(self, config_path: str) -> ConfigResult:
            file = Path(self.path, self._normalize_file_name(config_path))
            if not os.path.exists(file):
                return super().load_config(config_path)  # says so
            content = read_config_file(file, plugins)
            if content is not None and not isinstance(content, dict):
                raise UserError(f"{file}: holds no settings; write them as 'key: value' lines")
            loaded = ConfigResult(
                provider=self.provider,
                path=f"{self.scheme()}://{self.path}",
                config=OmegaConf.create(content or {}),
                header=self._get_header_dict(read_text(file)[:512]),
            )
            group = config_path.partition("/")[0]
            if group in known_groups() and isinstance(loaded.config, DictConfig):
                loaded.config.pop(KEY, None)  # no setting: metakd.config.brings applies it
            if group == "experiment" and isinstance(loaded.config, DictConfig):
                loaded.config.pop(IF_DOWNLOADED, None)  # likewise: metakd.config.downloaded
            if conf_folder() not in file.resolve().parents:
                loaded.config = _with_new_names(loaded, group, file)
            return loaded

    # A launcher's process registers Hydra's own class beside the one that it is handed: it takes
    # the two for the same by their names.
    Checked.__name__ = FileConfigSource.__name__
    Plugins.instance()  # registers Hydra's own sources
    types = SourcesRegistry.instance().types
    before = types["file"]
    types["file"] = Checked
    try:
        yield
    finally:
        types["file"] = before
