"""Data of the page's table and charts: a row for each run, and what all rows share."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metakd.comparing.columns import differing, groups, is_off
from metakd.comparing.compare import Comparable, apart_sets, comparable_sets
from metakd.comparing.figures import headline_shots, machine_of
from metakd.comparing.frame import frame_of
from metakd.comparing.gather import Run
from metakd.comparing.sentences import outside_pretraining, title
from metakd.comparing.tables import shown
from metakd.dashboard.series import progress_of
from metakd.dashboard.watch import Watch, figures_of
from metakd.reports.doubts import divergence
from metakd.runs.records import Results

__all__ = ["MODEL", "Rows", "letter", "passing_of", "plain", "rows_of"]

MODEL = "student"
"""The model whose tasks decide which runs can be compared."""

COSTS = (
    "parameters",
    "macs",
    "task_macs",
    "bytes",
    "latency_ms",
    "latency_ms_spread",
    "task_latency_ms",
)


@dataclass(frozen=True)
class Rows:
    """Data of some runs for the page.

    Attributes:
        head: what all rows have in common: `settings` (columns), `shots`, `sets`, `apart`,
            `outside`, `notes`.
        rows: by the run's word, in the order found.
    """

    head: Mapping[str, Any]
    rows: Mapping[str, Mapping[str, Any]]


def rows_of(watch: Watch, runs: Sequence[Run], notes: Sequence[str]) -> Rows:
    """Return what the page shows of `runs`.

    Args:
        watch: that found them.
        runs: of any status.
        notes: sentences for people.
    """
    finished = [run for run in runs if run.results is not None]
    frames = {run: frame_of(run, MODEL) for run in finished}
    shots = headline_shots(finished, MODEL)
    sets = comparable_sets([(run,) for run in finished], frames, shots, MODEL)
    set_of = {row[0]: i for i, one in enumerate(sets) for row in one.rows}
    machines = {m: i for i, m in enumerate(dict.fromkeys(machine_of(run) for run in finished))}
    group_of = {run: i for i, row in enumerate(groups(finished, frames)) for run in row}
    keys = differing(runs) if runs else {}
    made = {}
    for run in runs:
        found = _row(watch, run, keys)
        if run in set_of:
            found |= {"set": set_of[run], "group": group_of[run]}
            found["machine"] = machines[machine_of(run)]
        made[watch.id_of(run)] = found
    return Rows(
        {
            "folder": str(watch.root),
            "settings": list(keys.values()),
            "shots": shots,
            "sets": [_set(i, one) for i, one in enumerate(sets)],
            "apart": _apart(watch, sets),
            "outside": _outside(watch, sets),
            "notes": list(notes),
        },
        made,
    )


def _row(watch: Watch, run: Run, keys: Mapping[str, str]) -> dict[str, Any]:
    off = [key for key in keys if key not in run.settings or is_off(run.settings, key)]
    found: dict[str, Any] = {
        "id": watch.id_of(run),
        "path": watch.place_of(run),
        "name": run.name,
        "status": run.status,
        "seed": run.seed,
        "settings": {
            name: plain(run.settings[key]) for key, name in keys.items() if key not in off
        },
        "tags": [str(tag) for tag in _list(run.settings.get("tags"))],
        **passing_of(watch, run),
    }
    if run.reason is not None:
        found["reason"] = run.reason
    for name, lines in (("outside", run.outside), ("warnings", run.warnings)):
        if lines:
            found[name] = lines
    for key, moment in (("start", run.info.start), ("end", run.info.end)):
        if moment is not None:
            found[key] = moment
    if run.results is not None:
        found |= _results(run, run.results)
    return found


def passing_of(watch: Watch, run: Run) -> dict[str, Any]:
    """Return what changes while a run is running, and is not in `run`.

    `logged`, the bytes of its metrics; `figures`, its pictures; `progress`.
    """
    found = {"figures": figures_of(watch.root, run), "logged": _size(run)}
    progress = progress_of(watch.root, run)
    return {**found, "progress": progress} if progress else found


def _results(run: Run, results: Results) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    diverged: dict[str, Any] = {}
    for model, by_shots in run.headlines.items():
        figures[model] = {
            str(shots): [entry.value, entry.ci95]
            for shots, entry in by_shots.items()
            if entry.value is not None
        }
        words = {str(k): divergence(model, e) for k, e in by_shots.items() if e.diverged}
        diverged |= {model: words} if words else {}
    measured = next((e for by in run.headlines.values() for e in by.values()), None)
    costs = {
        name: {key: value for key in COSTS if (value := model.cost.of(key)) is not None}
        for name, model in results.models.items()
    }
    return {
        "measure": "accuracy" if measured is None else measured.measure,
        **({"shots": measured.shots} if measured is not None else {}),
        **({"tasks": measured.tasks} if measured is not None and measured.tasks else {}),
        "accuracy": figures,
        **({"diverged": diverged} if diverged else {}),
        "cost": {model: cost for model, cost in costs.items() if cost},
        "fidelity": results.fidelity.model_dump(exclude_none=True),
        "seconds": math.fsum(results.timing.values()),
    }


def _set(number: int, one: Comparable) -> dict[str, Any]:
    return {
        "letter": letter(number),
        "title": title(one).removesuffix(", ± 95 % interval"),
        "measure": one.frame.measure if one.frame else "accuracy",
        "shots": list(one.shots),
        "runs": sum(len(row) for row in one.rows),
    }


def _outside(watch: Watch, sets: Sequence[Comparable]) -> list[str]:
    """Return a sentence for each set of which some rows alone are with outside pre-training."""
    return [
        line
        for one in sets
        for line in outside_pretraining(one.rows, lambda row: watch.place_of(row[0]))
    ]


def letter(number: int) -> str:
    """Return A for 0 … Z for 25, then AA, as spreadsheets name columns."""
    word = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        word = chr(ord("A") + rest) + word
    return word


def _apart(watch: Watch, sets: Sequence[Comparable]) -> list[str]:
    """Return why the runs of each set cannot be compared with those of the first one."""
    return [
        f"{letter(number)} cannot be compared with A: {apart.reason}"
        for number, apart in enumerate(apart_sets(sets, MODEL), start=1)
    ]


def plain(value: Any) -> Any:
    """Return a setting's value as the page takes it: a number, a text, true or false."""
    if isinstance(value, (bool, str)) or _is_number(value):
        return value
    return shown(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _size(run: Run) -> int:
    try:
        return os.stat(run.path / "metrics.jsonl").st_size
    except OSError:
        return 0
