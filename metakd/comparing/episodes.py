"""The figure of each evaluation task, from a run's episodes.csv, checked before it is paired."""

from __future__ import annotations

import csv
import io
import math

from metakd.comparing.gather import Run
from metakd.plain_data import UnreadableError, read_text
from metakd.reports.doubts import share
from metakd.runs.records import Measurement, shots_word

__all__ = ["EpisodesError", "figures_by_task"]

ROUNDING = 1e-6
"""Tolerance between the mean over tasks and the figure of results.json (relative or absolute)."""


class EpisodesError(ValueError):
    """A run's tasks cannot be paired; the message says why, in a few words."""


def figures_by_task(run: Run, model: str, shots: int) -> dict[int, float]:
    """Return the figure of each task, by its number, for `model`'s main measurement.

    Args:
        run: a finished one.
        model: `student`, `student_alone` or `teacher`.
        shots: of the tasks.

    Raises:
        EpisodesError: there are none, the file is damaged, or it does not belong to results.json.
    """
    entry = run.headlines.get(model, {}).get(shots)
    if entry is None:
        raise EpisodesError(f"no {shots_word(shots)} figure of the {model.replace('_', ' ')}")
    measure, figure = entry.measure, entry.value
    if figure is None:
        raise EpisodesError(
            f"{share(entry.diverged or 0.0)} of its tasks diverged: there is no mean squared error"
        )
    try:
        text = read_text(run.path / "episodes.csv")
        found = _rows(text, _key(model, shots, entry), measure)
    except UnreadableError as error:
        raise EpisodesError(f"episodes.csv cannot be read ({error})") from error
    except (csv.Error, ValueError) as error:
        raise EpisodesError(f"episodes.csv is damaged ({error})") from error
    if len(found) != (entry.tasks or len(found)) or len(found) < 2:
        raise EpisodesError(f"episodes.csv has {len(found)} tasks, results.json {entry.tasks}")
    mean = math.fsum(found.values()) / len(found)
    if not math.isclose(mean, figure, rel_tol=ROUNDING, abs_tol=ROUNDING):
        raise EpisodesError(
            f"episodes.csv does not belong to results.json (mean {measure} {mean:.6g} there, "
            f"{figure:.6g} here)"
        )
    return found


def _key(model: str, shots: int, entry: Measurement) -> tuple[str, ...]:
    steps = "" if entry.steps is None else str(entry.steps)
    return (
        model,
        str(shots or ""),
        steps,
        entry.batchnorm or "",
        getattr(entry, "state", None) or "",
    )


def _rows(text: str, key: tuple[str, ...], measure: str) -> dict[int, float]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header = next(reader, [])
    missing = [c for c in ("model", "shots", "steps", "batchnorm", "task") if c not in header]
    if missing or measure not in header:
        raise ValueError(f"no column '{(missing or [measure])[0]}'")
    wanted = [header.index(c) for c in ("model", "shots", "steps", "batchnorm")]
    if "state" in header:  # of a network on a whole dataset
        wanted.append(header.index("state"))
    key = key[: len(wanted)]
    task, value = header.index("task"), header.index(measure)
    found: dict[int, float] = {}
    for row in reader:
        if len(row) != len(header):
            raise ValueError(f"line {reader.line_num} has {len(row)} of {len(header)} columns")
        if tuple([row[i] for i in wanted]) != key:
            continue
        number, figure = int(row[task]), float(row[value])
        if not math.isfinite(figure):
            raise ValueError(f"line {reader.line_num}: {row[value]} is no figure")
        if number in found:
            raise ValueError(f"line {reader.line_num}: task {number} stands there twice")
        found[number] = figure
    return found
