"""Everything that determines a run's evaluation tasks, and so what it can be compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from metakd.comparing.gather import Run
from metakd.runs.records import WholeMeasurement

__all__ = ["WHOLE", "Frame", "frame_of", "obstacles", "reasons"]


FEW_SHOT, WHOLE = "few-shot tasks", "a whole dataset"
"""Protocols of evaluation."""


@dataclass(frozen=True)
class Frame:
    """Everything except shots that determines the evaluation tasks of a model and their measure.

    None: not recorded (or, for ways, that tasks have none). Runs of equal frames, with nothing
    unknown in them, were evaluated on the same tasks if they have the same shots.

    Attributes:
        dataset: its name.
        classes: what decides the class split: `dataset.splits`, `split_seed`, `rotations`.
        data: SHA-256 of the prepared data.
        part: `test` or `validate` classes.
        held_out: whether images of the target's test split are left out of `validate`.
        seed: `evaluate.seed`.
        ways: classes of a task.
        queries: query examples of a class.
        tasks: their number.
        measure: `accuracy` or `mse`.
        batchnorm: `inductive` (also of networks without batch norm: each query is classified
            independently) or `transductive`.
        centre: `evaluate.centre`.
        versions: of each support image, how many and changed how; None: the image alone.
        protocol: `few-shot tasks`, or `a whole dataset`, whose test images count as tasks here.
    """

    dataset: str | None
    classes: tuple[Any, ...]
    data: str | None
    part: str | None
    held_out: bool
    seed: int | None
    ways: int | None
    queries: int | None
    tasks: int | None
    measure: str
    batchnorm: str
    centre: bool
    versions: tuple[int, str] | None
    protocol: str = FEW_SHOT


NAMES = {
    "dataset": "data",
    "data": "data (checksum)",
    "part": "classes (evaluate.part)",
    "held_out": "images left out for the target task",
    "seed": "evaluation seed (evaluate.seed)",
    "ways": "ways",
    "queries": "queries",
    "tasks": "number of tasks",
    "measure": "measure",
    "batchnorm": "batch-norm mode",
    "centre": "centring (evaluate.centre)",
    "versions": "versions of a support image (evaluate.augmented_shots)",
}
SPLIT = ("dataset.splits", "dataset.split_seed", "dataset.rotations")
READ = (
    *SPLIT,
    "dataset.name",
    "evaluate.part",
    "evaluate.seed",
    "evaluate.centre",
    "evaluate.augmented_shots",
    "evaluate.augment",
    "dataset.augment",
    "finetune.enabled",
    "finetune.target",
    "task.ways",
    "task.queries",
)
"""Settings that determine the tasks."""


def frame_of(run: Run, model: str) -> Frame | None:
    """Return the frame of a model's headline; None if the run has none of that model.

    Args:
        run: a finished one.
        model: `student`, `student_alone` or `teacher`.
    """
    if model not in run.headlines:
        return None
    entry = next(iter(run.headlines[model].values()))
    # Values of a damaged configuration can be compared, too.
    settings = {key: _plain(value) for key, value in run.settings.items() if key in READ}
    measure = entry.measure
    ways, queries = settings.get("task.ways"), settings.get("task.queries")
    part = settings.get("evaluate.part")
    whole = entry if isinstance(entry, WholeMeasurement) else None
    frame = Frame(
        dataset=settings.get("dataset.name"),
        classes=tuple(settings.get(key) for key in SPLIT),
        data=run.info.data_checksum,
        part=part,
        held_out=part == "validate"
        and bool(settings.get("finetune.enabled"))
        and settings.get("finetune.target") == "all",
        seed=settings.get("evaluate.seed"),
        ways=ways if entry.ways is None and measure == "accuracy" else entry.ways,
        queries=queries if entry.queries is None else entry.queries,
        tasks=entry.tasks,
        measure=measure,
        batchnorm=entry.batchnorm or "inductive",
        centre=settings.get("evaluate.centre") is True,
        versions=_versions(settings),
    )
    if whole is None:
        return frame
    # The images are those of the data; neither seed nor queries decide which.
    return replace(
        frame,
        ways=whole.classes,
        tasks=whole.images,
        queries=0,
        seed=0,
        held_out=False,
        protocol=WHOLE,
    )


def _versions(settings: Mapping[str, Any]) -> tuple[int, str] | None:
    count = settings.get("evaluate.augmented_shots", 1)
    if not isinstance(count, int) or count < 2:
        return None
    kinds = settings.get("evaluate.augment")
    return count, str(settings.get("dataset.augment") if kinds in (None, "[]") else kinds)


def reasons(one: Frame, other: Frame) -> list[str]:
    """Return why figures of two frames cannot be compared; empty if they can.

    Values that are not recorded count as different.
    """
    found: list[str] = []
    if one.protocol != other.protocol:
        return [f"other protocol: {one.protocol} and {other.protocol}"]
    # Other data have another checksum: only the most specific cause is given.
    for name in ("dataset", "classes", "data"):
        if getattr(one, name) != getattr(other, name):
            found.append(_reason(name, one, other))
            break
    for field in fields(Frame):
        name = field.name
        # Regression has no ways; then the measure differs, too.
        passed = name in ("dataset", "classes", "data") or (
            name == "ways" and one.measure != other.measure
        )
        if not passed and getattr(one, name) != getattr(other, name):
            found.append(_reason(name, one, other))
    unknown = [f for f in ("data", "part", "seed", "queries", "tasks") if _unknown(f, one, other)]
    if unknown and not found:
        found.append(f"not recorded: {', '.join(NAMES[f] for f in unknown)}")
    return found


def obstacles(one: Frame, other: Frame) -> list[str]:
    """Return why two runs cannot be compared task by task; empty if they can.

    Tasks are drawn in sequence: if only their number differs, the tasks of the run with fewer are
    the first ones of the other run.
    """
    found = reasons(one, other)
    if found and None not in (one.tasks, other.tasks):
        return found if reasons(one, replace(other, tasks=one.tasks)) else []
    return found


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, (bool, int, float, str)) else repr(value)


def _unknown(name: str, one: Frame, other: Frame) -> bool:
    return getattr(one, name) is None or getattr(other, name) is None


def _reason(name: str, one: Frame, other: Frame) -> str:
    before, after = getattr(one, name), getattr(other, name)
    if name == "classes":
        pairs = zip(SPLIT, before, after, strict=True)
        said = "; ".join(f"{key} {_word(a)} and {_word(b)}" for key, a, b in pairs if a != b)
        return f"other classes: {said}"
    if name == "data":
        if before is None or after is None:
            return "not recorded: data (checksum)"
        before, after = before[:12], after[:12]
    if name == "held_out":
        return f"other {NAMES[name]}"
    if name == "versions":
        before, after = (1 if v is None else f"{v[0]} by {v[1]}" for v in (before, after))
    return f"other {NAMES[name]}: {_word(before)} and {_word(after)}"


def _word(value: Any) -> str:
    names: Mapping[Any, str] = {"mse": "mean squared error"}
    if value is None:
        return "not recorded"
    if isinstance(value, bool):
        return str(value).lower()
    return names.get(value, str(value))
