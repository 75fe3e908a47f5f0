"""Settings that are paths, and what relative ones are relative to."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metakd.config.declared import declarations
from metakd.config.locate import Choices

__all__ = ["LISTS", "PATH_KEYS", "absolute", "with_paths_from"]

PATH_KEYS = frozenset(
    {
        *(key for key, known in declarations().items() if known.path),
        "hydra.run.dir",
        "hydra.sweep.dir",
        "resume",
    }
)
"""Keys whose values are paths: they may hold any character."""

LISTS = ("teacher.further_checkpoints", "student.further_checkpoints")
"""Settings that hold several paths."""


def with_paths_from(recorded: Mapping[str, Any], directory: str | None) -> dict[str, Any]:
    """Return a recorded configuration with absolute paths.

    Args:
        recorded: as config.yaml has it.
        directory: where its command was typed; null: in the present one.
    """
    found = copy.deepcopy(dict(recorded))
    place = Path.cwd() if directory is None else Path(directory)
    for key in (*PATH_KEYS, *LISTS):
        group, _, name = key.rpartition(".")
        holder = found.get(group) if group else found
        value = holder.get(name) if isinstance(holder, dict) else None
        if holder is not None and isinstance(value, str) and value:
            holder[name] = absolute(key, value, place)
        elif holder is not None and isinstance(value, list):
            holder[name] = [absolute(key, str(one), place) for one in value]
    return found


def absolute(key: str, value: str, directory: Path) -> str:
    """Return a path, as a setting holds it, as an absolute one; a name that is no path as it is.

    Args:
        key: the setting.
        value: its value.
        directory: the folder that a relative path is below.
    """
    path = directory / Path(value).expanduser()
    if key == "dataset.splits":  # or the name of a class split that the dataset knows
        return str(path) if path.is_file() else value
    if key == "warmstart.unlabelled":  # or the run's own examples, or the name of a dataset
        return value if value in ("train", *Choices().of("dataset")) else str(path)
    return str(path)
