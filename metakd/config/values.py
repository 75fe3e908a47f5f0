"""Which values a single setting may have: words and ranges, checked before torch is imported."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from metakd.config.declared import declaration, known_settings, value_of
from metakd.config.schema import Config
from metakd.errors import UserError, nearest

__all__ = ["check_device", "check_values"]

STAGES = ("pretrain", "warmstart", "meta_train", "finetune")


def check_device(device: str) -> None:
    """Refuse the name of no device.

    Raises:
        UserError: it is none.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?|mps", str(device)):
        devices = ("auto", "cpu", "cuda", "cuda:1", "mps")
        named = re.sub(r"^(gpu|nvidia)(?=$|:)", "cuda", str(device), flags=re.IGNORECASE)
        hint = nearest(str(device), devices)
        if named != str(device):
            hint = f" Did you mean '{named}'?"
        raise UserError(f"device={device}: expected one of {', '.join(devices)}.{hint}")


def check_values(config: Config) -> None:
    """Refuse a value that its setting can never have.

    Words of a user's own class (a `_target_` outside metakd) are left to that class.

    Raises:
        UserError: the first such value, with the nearest valid one.
    """
    for key in known_settings():
        known = declaration(key)
        words = known.fact or not _foreign(config, key)
        known.check(value_of(config, key), key, words=words)
    check_device(config.device)
    _check_name(config.name)
    for step in _steps(config):
        if step.schedule == "step" and step.halve_every is None:
            raise UserError("schedule=step needs halve_every=NUMBER in the same stage")


def _foreign(config: Config, key: str) -> bool:
    group = key.partition(".")[0]
    target = getattr(getattr(config, group), "_target_", "metakd.")
    return not str(target).startswith("metakd.")


def _check_name(name: str) -> None:
    parts = name.split("/")
    if not name.strip() or "\0" in name or any(p in ("", ".", "..") for p in parts):
        raise UserError(f"name='{name}': it becomes a folder's name, so it cannot be that")


def _steps(config: Config) -> Iterator[Any]:
    for stage in STAGES:
        yield getattr(config, stage)
