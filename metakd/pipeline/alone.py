"""The student's undistilled twin: trained once for all runs that have the same one.

It depends on nothing of teacher and distillation, so that all runs of a sweep over `distill` have
the same. What is kept is what training leaves: weights, the validation value by which they were
chosen, the lines of metrics. A run that takes it differs from one that trains it in time alone.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metakd.data.cache import read_checked, write_checked
from metakd.distillation.objective import Objective
from metakd.pipeline.identity import key_of_student_alone
from metakd.pipeline.learners import Student, train_student
from metakd.pipeline.prepared import Prepared
from metakd.stages.kept import from_cache_or_made
from metakd.stages.recorder import Recorder

__all__ = ["STAGES", "keep_as_student_alone", "student_alone", "validated_alone"]

SUFFIX = "_alone"
BEST = "best/"
"""Before the names of the tensors of the state that was best on validation (whole datasets)."""
STAGES = ("warmstart", "meta_train")
"""Of which a student's training consists."""


def student_alone(prepared: Prepared, recorder: Recorder) -> Student:
    """Return the undistilled twin, from the cache or trained now.

    What an earlier process of this run has begun is gone on with.
    """
    folder = _folder(prepared)
    if folder is None or any(recorder.begun(stage + SUFFIX) for stage in STAGES):
        return train_student(prepared, recorder, None, suffix=SUFFIX)
    group = recorder.group
    key = key_of_student_alone(prepared, group.size)
    found: list[Student] = []

    def take(weights: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        found.append(_restored(prepared, weights, meta))
        for stage, step, metrics in meta["lines"]:
            known = {name: math.nan if v is None else v for name, v in metrics.items()}
            recorder.log(stage + SUFFIX, step, known)

    def make() -> None:
        found.append(train_student(prepared, recorder, None, suffix=SUFFIX))
        _keep(folder, key, found[0], recorder, SUFFIX)

    if group.size == 1:
        from_cache_or_made(folder, key, "student alone", recorder, take, make)
        return found[0]
    # Several processes train it together; none of them may wait for another run in the meantime.
    entry = group.first(lambda: read_checked(folder, key))
    if entry is None:
        make()
    else:
        take(*entry)
        recorder.say(f"student alone: taken from the cache ({key[:12]})")
    return found[0]


def validated_alone(prepared: Prepared, processes: int) -> float | None:
    """Return the accuracy on meta-validation of the twin, where another run has trained it."""
    folder = _folder(prepared)
    if folder is None:
        return None
    entry = read_checked(folder, key_of_student_alone(prepared, processes))
    return None if entry is None else entry[1].get("validated")


def keep_as_student_alone(prepared: Prepared, recorder: Recorder, student: Student) -> None:
    """Keep a student that had no teacher: it is the twin of those that have one."""
    folder = _folder(prepared)
    if folder is None or recorder.folder is None:
        return
    key = key_of_student_alone(prepared, recorder.group.size)
    if read_checked(folder, key) is None:
        _keep(folder, key, student, recorder, "")


def _folder(prepared: Prepared) -> Path | None:
    return prepared.cache_root / "students" if prepared.config.student_alone_cache else None


def _keep(folder: Path, key: str, student: Student, recorder: Recorder, suffix: str) -> None:
    """Write the entry, in the process that has the run's folder and with it the lines."""
    if recorder.folder is None:
        return
    recorder.folder.flush()
    stages = {stage + suffix: stage for stage in STAGES}
    lines = [
        [stages[line["stage"]], line["step"], line["metrics"]]
        for line in recorder.folder.read_metrics()
        if line["stage"] in stages
    ]
    meta = {"seconds": student.seconds, "validated": student.validated, "lines": lines}
    best = {f"{BEST}{name}": value for name, value in (student.best or {}).items()}
    write_checked(folder, key, {**student.algorithm.state_dict(), **best}, meta)


def _restored(
    prepared: Prepared, weights: Mapping[str, Tensor], meta: Mapping[str, Any]
) -> Student:
    torch.manual_seed(prepared.config.seed)  # as in training, for its head
    algorithm = prepared.algorithm(copy.deepcopy(prepared.student))
    best = {n.removeprefix(BEST): w for n, w in weights.items() if n.startswith(BEST)}
    algorithm.load_state_dict({n: w for n, w in weights.items() if not n.startswith(BEST)})
    objective = Objective().to(prepared.device)
    return Student(algorithm, objective, dict(meta["seconds"]), meta["validated"], best or None)
