"""Schedules of older runs that changed nothing, as `Schedule.of` takes them now.

`linear` or `cosine` without `start` and `end` stayed at the value that was set, and is refused
where it is typed. A run that recorded one is read as `constant`, which computes the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["schedules_as_now"]


def schedules_as_now(content: dict[str, Any]) -> None:
    """Write `constant` for the schedules of a recorded configuration that change nothing.

    Args:
        content: the whole configuration, nested dictionaries; changed in place.
    """
    distill = content.get("distill")
    if not isinstance(distill, Mapping):
        return
    settings = distill.get("settings")
    terms = settings.values() if isinstance(settings, Mapping) else ()
    for holder in (distill, *terms):
        schedules = holder.get("schedules") if isinstance(holder, Mapping) else None
        if isinstance(schedules, dict):
            _write(schedules)
            if isinstance(schedules.get("terms"), dict):  # of distill=combine, by name
                _write(schedules["terms"])


def _write(schedules: dict[str, Any]) -> None:
    for name, typed in schedules.items():
        if name == "terms":
            continue
        given = typed if isinstance(typed, Mapping) else {"shape": typed}
        moves = {"start", "end"} & given.keys()
        if given.get("shape", "linear") in ("linear", "cosine") and not moves:
            schedules[name] = "constant"
