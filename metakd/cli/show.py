"""What `metakd train` shows instead of running: the configuration and where it comes from."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra._internal.hydra import Hydra
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import Container, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from metakd.config.checks import check
from metakd.config.compose import compose, typed_plugins
from metakd.config.composition import CONFIG_NAME, composing, search_path
from metakd.config.declared import declaration, is_fact, known_settings
from metakd.config.downloaded import with_downloaded
from metakd.config.locate import Choices, user_folder
from metakd.config.overrides import check_override, parse
from metakd.config.suggest import flattened
from metakd.errors import UserError

__all__ = ["complete_line", "hydra_application", "show"]


@contextmanager
def hydra_application(config_dir: Path | None, plugins: Sequence[str] = ()) -> Iterator[Hydra]:
    """Lend Hydra's own application object; its global state is given back afterwards."""
    choices = Choices(config_dir)
    with composing(choices, plugins):
        try:
            yield Hydra.create_main_hydra2("metakd", search_path(config_dir))
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            raise error if isinstance(error, UserError) else flattened(error) from error
        finally:
            GlobalHydra.instance().clear()


def show(asked: argparse.Namespace) -> int:
    """Show what the options ask for."""
    logging.raiseExceptions = False  # Hydra prints through logging; nobody may be reading (| head)
    folder = user_folder(asked.config_dir)
    if asked.shell_completion:
        return _complete(asked.overrides, folder)
    if asked.hydra_help:
        with hydra_application(folder) as hydra:
            parser = get_args_parser()
            hydra.hydra_help(CONFIG_NAME, parser, parser.parse_args(["--hydra-help"]))
        return 0
    composed = compose(asked.overrides, folder)
    if asked.cfg:
        check(composed.config)
    if asked.cfg == "job":
        sys.stdout.write(_job(composed.source, asked.package, asked.resolve))
        return 0
    parsed = parse(asked.overrides)
    choices = Choices(folder)
    lines, _ = with_downloaded([check_override(o, choices) for o in parsed], parsed, choices)
    lines += [word for words in composed.brought.values() for word in words]
    with hydra_application(folder, typed_plugins(parsed)) as hydra:
        if asked.cfg:
            hydra.show_cfg(CONFIG_NAME, lines, asked.cfg, asked.package, asked.resolve)
        else:
            hydra.show_info(asked.info, CONFIG_NAME, lines)
    return 0


def _job(text: str, package: str | None, resolve: bool) -> str:
    config = OmegaConf.create(text)
    assert isinstance(config, DictConfig)
    if resolve:
        OmegaConf.resolve(config)
    if package in (None, "_global_"):
        return OmegaConf.to_yaml(config)
    part = OmegaConf.select(config, str(package))
    if part is None and not _holds(config, str(package)):
        raise UserError(f"--package {package}: there is no such part of the configuration")
    if not OmegaConf.is_config(part):
        return f"{part}\n"
    return f"# @package {package}\n{OmegaConf.to_yaml(part)}"


def _holds(config: Container, package: str) -> bool:
    parent, _, leaf = package.rpartition(".")
    home = OmegaConf.select(config, parent) if parent else config
    return isinstance(home, DictConfig) and leaf in home


def _complete(words: list[str], folder: Path | None) -> int:
    with hydra_application(folder) as hydra:
        line = os.environ.get("COMP_LINE")
        if line is not None:
            # Hydra strips one word, the program's name; ours has the subcommand as a second one.
            os.environ["COMP_LINE"] = line.replace("metakd train ", "metakd ", 1)
        elif any(word.startswith("query") for word in words):
            raise UserError("--shell-completion query: the shell gives the line in COMP_LINE")
        hydra.shell_completion(CONFIG_NAME, words)
    return 0


def complete_line(line: str, config_dir: Path | None = None) -> list[str]:
    """Return what the last word of `line`, overrides of `metakd train`, can become."""
    from hydra._internal.core_plugins.bash_completion import BashCompletion

    key, equals, value = line.rpartition(" ")[2].partition("=")
    words = declaration(key).words if equals else ()
    if words and key in known_settings():
        return [f"{key}={word}" for word in words if word.startswith(value)]
    with hydra_application(config_dir) as hydra:
        found = BashCompletion(hydra.config_loader)._query(CONFIG_NAME, line)
    return [word for word in found if not is_fact(word.rstrip("=."))]
