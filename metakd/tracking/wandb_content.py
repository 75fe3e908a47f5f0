"""What is logged to W&B, under names that its panels can use."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from metakd.config.declared import is_fact
from metakd.runs.records import NO_SHOTS, Results, WholeMeasurement

__all__ = ["Place", "config_of", "place_of", "summary_of", "table_of"]

MOMENT = re.compile(r"\d{4}-\d{2}-\d{2}_\d{2}-\d{2}-\d{2}(_\d+)?")
LONGEST = 128
"""Characters of a group's name, W&B's limit."""

SWEEP = "sweep.json"
COLUMNS = ("model", "ways", "shots", "queries", "steps", "batchnorm", "measure", "value", "ci95",
           "tasks")  # fmt: skip
WHOLE = ("model", "classes", "state", "measure", "value", "ci95", "top5", "loss", "images")
"""Of a whole dataset."""

Place = tuple[str | None, str]


def place_of(folder: Path, name: str) -> Place:
    """Return group and display name of a run; jobs of a multirun have its folder as group.

    Args:
        folder: the run's.
        name: the run's.
    """
    sweep = folder.absolute().parent
    if not (sweep / SWEEP).is_file():
        return None, name
    # outputs/NAME/DATE_TIME: the date alone is no useful name.
    group = f"{sweep.parent.name}/{sweep.name}" if MOMENT.fullmatch(sweep.name) else sweep.name
    return group[-LONGEST:] or None, f"{name} {folder.name}"


def config_of(config: Mapping[str, Any], group: str = "") -> dict[str, Any]:
    """Return the settings for W&B's columns: numbers and text, by dotted name.

    W&B joins the names of nested settings by dots itself, so groups are kept; lists, which no axis
    can show, become text; facts about a choice are left out.
    """
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            inner = {
                k: v
                for k, v in value.items()
                if k != "_target_" and not is_fact(f"{group}{key}.{k}")
            }
            found[key] = config_of(inner, f"{group}{key}.")
        elif isinstance(value, (list, tuple)):
            found[key] = json.dumps(value, default=str)
        else:
            found[key] = value
    return found


def summary_of(results: Results) -> dict[str, Any]:
    """Return results.json's numbers and text by name, and the main results under short names.

    `student/accuracy`, `student/ci95` (regression: `student/mse`), the same of `student_alone` and
    `teacher`; `student/diverged`, the share of tasks that did, if any; `student/accuracy_5shot` for
    other shots; `gain/accuracy` and `gain/ci95`, student minus student alone; `cost/parameters`,
    `cost/macs`, `cost/latency_ms` … of the student.
    Everything else keeps its place: `student/fewshot/ways`.
    """
    found = dict(_flat(results.content, ""))
    for name, model in results.models.items():
        head = model.headline
        if head is None:
            continue
        found |= _numbers(
            {
                f"{name}/{head.measure}": head.value,
                f"{name}/ci95": head.ci95,
                f"{name}/diverged": head.diverged,
                f"{name}/mse_median": head.mse_median,
            }
        )
        for shots, entry in model.headlines().items():
            if shots == NO_SHOTS:
                continue
            short = f"{name}/{head.measure}_{shots}shot"
            found |= _numbers({short: entry.value if entry.measure == head.measure else None})
    # Of what was compressed there are others; early runs do not say of which models.
    twin = (None, "student"), (None, "student_alone")
    gain = next((g for g in results.gains if g.model in twin[0] and g.baseline in twin[1]), None)
    if gain is not None:
        measure = gain.measure or "accuracy"
        found |= _numbers({f"gain/{measure}": gain.difference, "gain/ci95": gain.ci95})
    return found | _numbers({f"cost/{k}": v for k, v in results.student.cost if v is not None})


def table_of(results: Results) -> tuple[list[str], list[list[Any]]]:
    """Return columns and rows of every measurement: model, shots, steps, batch-norm mode.

    The share of tasks that diverged is a column where any did.
    """
    entries = [(name, e) for name, model in results.models.items() for e in model.measurements]
    whole = any(isinstance(e, WholeMeasurement) for _, e in entries)
    columns = [*(WHOLE if whole else COLUMNS)]
    columns += ["diverged"] if any(e.diverged for _, e in entries) else []
    rows = [
        [name if column == "model" else getattr(entry, column, None) for column in columns]
        for name, entry in entries
    ]
    return columns, rows


def _flat(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Yield (name, value) of every number and word; lists (all that was measured) are left out."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}/")
        elif isinstance(value, str) or _is_number(value):
            yield name, value


def _numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if _is_number(value)}


def _is_number(value: Any) -> bool:
    return isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value))
