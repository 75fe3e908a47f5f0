"""Rows of tables: those to learn from, by class, and those to name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from numpy.typing import NDArray

from metakd.data.class_names import class_name
from metakd.data.features import FeaturePreprocessing
from metakd.data.table_file import TableFile, read_table_file
from metakd.errors import UserError
from metakd.using.folders import Asked

__all__ = ["asked_rows", "example_rows"]


def example_rows(path: Path, wanted: FeaturePreprocessing) -> dict[str, list[NDArray]]:
    """Return the rows of each class in a table, in the order of the classes' names.

    Args:
        path: of the CSV or .npz file.
        wanted: which columns the network expects, and what the column of classes is called.

    Raises:
        UserError: no such file, a missing column, a row without a class, a cell that is no number.
    """
    table = read_table_file(path, of_dataset=False)
    names = table.column(wanted.label, "the column of classes")
    found: dict[str, list[NDArray]] = {}
    for line, name, row in zip(table.lines, names, _numbers(table, wanted), strict=True):
        if not name:
            raise UserError(f"{path}, line {line}: no class in column '{wanted.label}'")
        found.setdefault(class_name(name), []).append(row)
    return dict(sorted(found.items()))


def asked_rows(paths: Sequence[Path], wanted: FeaturePreprocessing) -> list[Asked]:
    """Return the rows of tables that are asked about; a column of classes says the truth.

    Raises:
        UserError: as `example_rows`.
    """
    asked: list[Asked] = []
    for path in paths:
        table = read_table_file(path, of_dataset=False)
        known = table.cells.get(wanted.label, [""] * len(table))
        for line, name, row in zip(table.lines, known, _numbers(table, wanted), strict=True):
            truth = class_name(name.strip()) or None
            asked.append(Asked(Path(f"{path}:{line}"), truth, row))
    return asked


def _numbers(table: TableFile, wanted: FeaturePreprocessing) -> NDArray:
    return table.numbers(wanted.columns, wanted.missing)
