"""Warnings on a run's results as text, with what to type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from metakd.runs.records import Measurement, Results, WholeMeasurement

__all__ = ["MARK", "WARNED", "divergence", "divergence_lines", "remedy", "share"]

MARK = "†"
"""Marks a figure of which some tasks diverged."""

WARNED = "‡"
"""Marks the name of a run that recorded warnings."""


def remedy(model: str, entry: Measurement) -> str:
    """Return which settings to lower where a model's predictions are not finite.

    Args:
        model: `student`, `student_alone` or `teacher`.
        entry: its measurement.
    """
    if entry.steps:
        return "algorithm.inner_lr or algorithm.inner_steps_test"
    return "pretrain.lr" if model == "teacher" else "meta_train.lr"


def divergence_lines(results: Results, names: Mapping[str, str]) -> Iterator[str]:
    """Yield a line for each model with diverged evaluation tasks.

    Args:
        results: the run's.
        names: of the models, by key.
    """
    for model, name in names.items():
        measured = results.models[model]
        found = [entry for entry in measured.measurements if entry.diverged]
        if not found:
            continue
        head = measured.headline
        worst = head if head and head.diverged else max(found, key=lambda e: e.diverged or 0.0)
        yield f"{MARK} {name}: {divergence(model, worst)}"


def divergence(model: str, entry: Measurement) -> str:
    """Return a sentence on the diverged tasks of a measurement, and what to lower.

    Args:
        model: `student`, `student_alone` or `teacher`.
        entry: the measurement.
    """
    if isinstance(entry, WholeMeasurement):
        lost = f"its answers to {share(entry.diverged or 0.0)} of the test examples are not finite"
        return f"{lost}; they count as wrong answers; lower {remedy(model, entry)}"
    words = f"{share(entry.diverged or 0.0)} of its {entry.shots}-shot tasks diverged"
    if entry.steps:
        words += f" at {_steps(entry.steps)}"
    if entry.batchnorm == "transductive":
        words += ", transductive"
    if entry.diverged_from_step is not None:
        words += f", the first after {_steps(entry.diverged_from_step)}"
    wrong = "they count as wrong answers" if entry.ways else "there is no mean squared error"
    return f"{words}; {wrong}; lower {remedy(model, entry)}"


def share(value: float) -> str:
    """Return a share in percent; values above 0 are not rounded to 0, nor those below 1 to 100."""
    percent = 100 * value
    if 0 < percent < 0.1:
        return "under 0.1 %"
    return f"{min(percent, 99.9) if value < 1 else percent:.1f} %".replace(".0 %", " %")


def _steps(count: int) -> str:
    return f"{count} adaptation step{'' if count == 1 else 's'}"
