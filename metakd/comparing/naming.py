"""Names of rows: their folders, or the settings in which they differ."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from metakd.comparing.cells import clean, value_of
from metakd.comparing.columns import CHOICES
from metakd.comparing.compare import Comparison
from metakd.comparing.gather import Run
from metakd.comparing.pairing import Row

__all__ = ["common_folder", "labels", "row_label", "row_names", "short_names", "varying"]

MISSING = "–"
"""`value_of` of a setting that a run does not have or does not use."""


def common_folder(runs: Sequence[Run]) -> str:
    """Return the folder that holds all runs; empty if there is none."""
    try:
        return os.path.commonpath([run.path.parent for run in runs])
    except ValueError:  # on different drives
        return ""


def labels(runs: Sequence[Run]) -> Mapping[Run, str]:
    """Return runs' folders relative to their common folder."""
    place = common_folder(runs)
    return {r: os.path.relpath(r.path, place) if place else str(r.path) for r in runs}


def row_label(row: Row, label: Mapping[Run, str]) -> str:
    """Return the folder of a row's first run, and how many more there are."""
    return label[row[0]] + (f" +{len(row) - 1}" if len(row) > 1 else "")


def varying(rows: Sequence[Row], comparison: Comparison) -> list[str]:
    """Return the settings in which `rows` differ, as columns call them, choices of groups first."""
    return sorted(
        (
            name
            for name in comparison.settings.values()
            if len({value_of(row[0], name, comparison) for row in rows}) > 1
        ),
        key=lambda name: name not in CHOICES,
    )


def short_names(settings: Sequence[str]) -> dict[str, str]:
    """Return for each setting its last word, or its full name if that word is ambiguous."""
    last = {name: name.rpartition(".")[2] for name in settings}
    words = list(last.values())
    return {name: word if words.count(word) == 1 else name for name, word in last.items()}


def row_names(rows: Sequence[Row], comparison: Comparison) -> tuple[dict[Row, str], list[str]]:
    """Return a name for each row from the settings in which it differs (``maml kd lr=0.1``).

    A setting is named only if it tells rows apart that those before it did not; then the run's
    name, the seed and at last the folder do.

    Args:
        rows: of one table.
        comparison: that they belong to.

    Returns:
        the names, all different, and the settings that are in them.
    """
    settings = varying(rows, comparison)
    short = short_names(settings)
    label = labels(comparison.runs)

    def of_setting(row: Row, name: str) -> str:
        value = value_of(row[0], name, comparison)
        if value == MISSING:
            return ""
        return value if name in CHOICES else f"{short[name]}={value}"

    said: dict[str, list[str]] = {n: [of_setting(row, n) for row in rows] for n in settings}
    said["name"] = [clean(row[0].name) for row in rows]
    said["seed"] = ["" if row[0].seed is None else f"seed={row[0].seed}" for row in rows]
    if any(len(row) > 1 for row in rows):
        del said["seed"]
    named = [""] * len(rows)
    used: list[str] = []
    for name, words in said.items():
        longer = [" ".join(filter(None, pair)) for pair in zip(named, words, strict=True)]
        if len(set(longer)) > len(set(named)):
            named, used = longer, [*used, name]
    found = {}
    for row, name in zip(rows, named, strict=True):
        where = clean(row_label(row, label))
        found[row] = name if name and named.count(name) == 1 else f"{name} [{where}]".strip()
    return found, used
