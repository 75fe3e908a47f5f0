"""A run's metrics: for its curves from where the page has read to, and how far it is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from metakd.comparing.gather import UNKNOWN, Run
from metakd.dashboard.watch import is_inside
from metakd.plain_data import parse_json
from metakd.runs.records import MetricsLine, check_line

__all__ = ["progress_of", "read_series", "thinned"]

CHUNK = 32 * 2**20
"""Bytes of metrics.jsonl that are read for one answer; the page asks for the rest."""

TAIL = 16_384
"""Bytes of metrics.jsonl that are looked at from its end."""

Stages = dict[str, dict[str, Any]]


def read_series(root: Path, path: Path, place: str = "") -> dict[str, Any]:
    """Return the lines of a metrics.jsonl behind `place`.

    Args:
        root: the folder out of which nothing is read.
        path: the file; it may not be there yet.
        place: as the last answer had it; empty: from the beginning.

    Returns:
        `place` to go on from; `anew`, whether this begins at the beginning (also because the run
        was resumed and its file is another one); `more`, whether there is more at once; `stages`:
        for each `step` and `time` (lists) and `metrics`, by name a list as long, null where a line
        has no such metric; `left_out`, the number of lines that are damaged.
    """
    stages: Stages = {}
    answer: dict[str, Any] = {"place": "", "anew": True, "more": False, "stages": stages}
    answer["left_out"] = 0
    if not is_inside(root, path):
        return answer
    try:
        with path.open("rb") as file:
            stat = os.fstat(file.fileno())
            which, _, at = place.partition(":")
            known = which == str(stat.st_ino) and at.isdecimal() and int(at) <= stat.st_size
            start = int(at) if known else 0
            file.seek(start)
            content = file.read(CHUNK)
    except OSError:
        return answer
    whole = content.rfind(b"\n") + 1
    lines, damaged = _sound(content[:whole])
    for line in lines:
        _add(stages, line)
    return {
        "place": f"{stat.st_ino}:{start + whole}",
        "anew": not known,
        "more": whole > 0 and start + len(content) < stat.st_size,
        "stages": stages,
        "left_out": damaged,
    }


def _sound(content: bytes) -> tuple[list[MetricsLine], int]:
    """Return the lines that can be used, and the number of others (as MetaKD's own reader)."""
    found: dict[tuple[str, int], MetricsLine] = {}
    disputed: set[tuple[str, int]] = set()
    damaged = 0
    for raw in content.split(b"\n"):
        if not raw.strip():
            continue
        try:
            line = check_line(parse_json(raw.decode("utf-8")))
        except ValueError:
            damaged += 1
            continue
        key = (line["stage"], line["step"])
        if found.setdefault(key, line)["metrics"] != line["metrics"]:
            disputed.add(key)
            damaged += 1
    return [line for key, line in found.items() if key not in disputed], damaged


def _add(stages: Stages, line: MetricsLine) -> None:
    stage = stages.setdefault(line["stage"], {"step": [], "time": [], "metrics": {}})
    before = len(stage["step"])
    stage["step"].append(line["step"])
    stage["time"].append(round(line["time"], 2))
    for name in line["metrics"]:
        stage["metrics"].setdefault(name, [None] * before)
    for name, values in stage["metrics"].items():
        value = line["metrics"].get(name)
        values.append(None if value is None else float(f"{value:.6g}"))


def thinned(stages: Stages, most: int) -> Stages:
    """Return about `most` points of each curve: every k-th one, and the last.

    Metrics that are rare (validation) keep all their points if these are no more than `most`.
    """
    found: Stages = {}
    for name, stage in stages.items():
        count = len(stage["step"])
        kept = set(range(0, count, -(-count // most))) | {count - 1} if count else set()
        for values in stage["metrics"].values():
            there = [i for i, value in enumerate(values) if value is not None]
            if len(there) <= most:
                kept.update(there)
        order = sorted(kept)
        found[name] = {
            "step": [stage["step"][i] for i in order],
            "time": [stage["time"][i] for i in order],
            "metrics": {m: [v[i] for i in order] for m, v in stage["metrics"].items()},
        }
    return found


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
