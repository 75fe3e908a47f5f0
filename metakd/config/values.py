"""Which values a single setting may have: words and ranges, checked before torch is imported."""

from __future__ import annotations

import re

from metakd.config.declared import declaration, known_settings, value_of
from metakd.config.schema import Config
from metakd.errors import UserError, nearest

__all__ = ["check_device", "check_values"]


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
        known, group = declaration(key), key.partition(".")[0]
        target = str(getattr(getattr(config, group), "_target_", "metakd."))
        words = known.fact or target.startswith("metakd.")
        known.check(value_of(config, key), key, words=words)
    check_device(config.device)
    name = config.name
    if not name.strip() or "\0" in name or {"", ".", ".."} & {*name.split("/")}:
        raise UserError(f"name='{name}': it becomes a folder's name, so it cannot be that")
    for stage in (config.pretrain, config.warmstart, config.meta_train, config.finetune):
        if stage.schedule == "step" and stage.halve_every is None:
            raise UserError("schedule=step needs halve_every=NUMBER in the same stage")
