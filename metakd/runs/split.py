"""split.json: which classes a run learned from, was selected by and was evaluated on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metakd.data.splits import SPLITS
from metakd.runs.atomic import write_text

__all__ = ["read_split", "split_text", "write_split"]

_FILE = "split.json"
_SCHEMA = 1


def split_text(dataset: str, splits: Mapping[str, tuple[Sequence[str], Sequence[int]]]) -> str:
    """Return the content of split.json.

    Args:
        dataset: its name.
        splits: by split the names of its classes and the number of images of each.
    """
    content: dict[str, Any] = {"schema": _SCHEMA, "dataset": dataset}
    for split in SPLITS:
        names, counts = splits[split]
        content[split] = {"classes": list(names), "images": list(counts)}
    # ASCII: a folder's name may hold bytes that are no text, and must come back as they were.
    return json.dumps(content) + "\n"


def write_split(folder: Path, text: str) -> None:
    """Write split.json into a run's folder; a run that goes on with other data has another one."""
    write_text(folder / _FILE, text)


def read_split(folder: Path) -> dict[str, list[str]] | None:
    """Return the names of each split's classes, None if the run has no split.json.

    Raises:
        UserError: it is damaged.
    """
    from metakd.runs.record import read_file
    from metakd.runs.records import ClassSplit

    path = folder / _FILE
    if not path.exists():
        return None
    found = read_file(path, ClassSplit)
    splits = (found.train, found.validate_, found.test)
    return {name: split.classes for name, split in zip(SPLITS, splits, strict=True)}
