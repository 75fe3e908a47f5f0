"""Progress of a run that is running or ended without results."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from metakd.comparing.gather import UNKNOWN, Run
from metakd.dashboard.watch import is_inside
from metakd.plain_data import parse_json
from metakd.runs.records import MetricsLine, check_line

__all__ = ["progress_of"]

TAIL = 16_384
"""Bytes of metrics.jsonl that are looked at from its end."""


def progress_of(root: Path, run: Run) -> dict[str, Any]:
    """Return `stage`, its number of `steps`, and the last `step` that was logged, where known.

    Nothing is said of a run that finished.

    Args:
        root: the folder out of which nothing is read.
        run: of any status.
    """
    if run.results is not None or run.info is UNKNOWN:
        return {}
    found: dict[str, Any] = {}
    stage, steps = run.info.stage, run.info.stage_steps
    if stage is not None:
        found["stage"] = stage
    if steps is not None:
        found["steps"] = steps
    last = _last_line(root, run.path / "metrics.jsonl")
    if last and last["stage"] == stage:
        found["step"] = last["step"] + 1
    return found


def _last_line(root: Path, path: Path) -> MetricsLine | None:
    try:
        if not is_inside(root, path):
            return None
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL))
            lines = file.read().split(b"\n")
    except OSError:
        return None
    for raw in reversed(lines[:-1]):
        try:
            return check_line(parse_json(raw.decode("utf-8")))
        except ValueError:
            continue
    return None
