"""The configuration that a run recorded, taken up again somewhere else."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metakd.config.compose import Composed, recompose
from metakd.config.overrides import PATH_KEYS, parse

__all__ = ["differences", "recorded_composed"]


def recorded_composed(
    run: Path,
    info: Mapping[str, Any],
    overrides: Sequence[str] = (),
    config_dir: str | Path | None = None,
) -> Composed:
    """Return a run's recorded configuration, changed by `overrides`.

    Relative paths in it are relative to where the run's command was typed, not to where this
    process is; those typed now are relative to here, as on every command line.

    Args:
        run: the run's folder.
        info: its run.json.
        overrides: what is typed now.
        config_dir: folder of the user's own config files.

    Raises:
        UserError: as `recompose`.
    """
    composed = recompose(run / ".hydra" / "config.yaml", overrides, config_dir)
    directory = info.get("directory")
    if not isinstance(directory, str):
        return composed
    typed = {o.key_or_group for o in parse(overrides)}
    for key in PATH_KEYS:
        group, _, name = key.rpartition(".")
        holder: Any = getattr(composed.config, group, None) if group else composed.config
        value = getattr(holder, name, None)
        if key in typed or not isinstance(value, str) or os.path.isabs(value):
            continue
        # A class split can be a name that the dataset knows instead of a file.
        if key != "dataset.splits" or (Path(directory) / value).is_file():
            setattr(holder, name, str(Path(directory) / value))
    return composed


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return which settings differ, a line `key: old -> new` each, in the order of their names."""
    old, new = _flat(before), _flat(after)
    return [
        f"{key}: {_word(old.get(key))} -> {_word(new.get(key))}"
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key)
    ]


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
