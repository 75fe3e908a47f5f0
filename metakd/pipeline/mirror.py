"""What a tracker is given at the end of a run beside its metrics: tables, the student itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metakd.errors import UserError
from metakd.pipeline.cards import student_card
from metakd.pipeline.prepared import Prepared
from metakd.pipeline.use import load
from metakd.stages.recorder import Recorder

__all__ = ["mirror_classes", "mirror_student"]


def mirror_classes(rows: Sequence[Mapping[str, Any]], recorder: Recorder) -> None:
    """Give the tracker each model's accuracy on each class, if there are classes."""
    if recorder.tracker is None or not rows:
        return
    columns = list(rows[0])
    recorder.tracker.table("per_class", columns, [[row[c] for c in columns] for row in rows])


def mirror_student(prepared: Prepared, folder: Path, recorder: Recorder) -> None:
    """Give the tracker the student as a folder that `metakd.load` reads, if it is asked to.

    Args:
        prepared: the run.
        folder: of the run; the student is written to `wandb/student` in it.
        recorder: has the tracker.
    """
    config = prepared.config
    if recorder.tracker is None or not (config.tracker.enabled and config.tracker.artifact):
        return
    place = folder / "wandb" / "student"
    try:
        load(folder, device="cpu", plugins=config.plugins).save(place)
    except UserError as problem:
        recorder.warn(f"the student could not be kept as an artifact ({problem})")
        return
    card = student_card(prepared)
    known = {
        "dataset": card.dataset,
        "trained_on": list(card.trained_on),
        "chosen_on": list(card.chosen_on),
        "preprocessing": None if card.preprocessing is None else card.preprocessing.plain(),
    }
    recorder.tracker.artifact("student", place, known)
