"""What `metakd compare --json` and `metakd ablate --json` print."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from annotated_types import Ge, MinLen
from pydantic import ConfigDict, Field, Strict, WithJsonSchema

from metakd.runs.record import Amount, Count, File, Maybe, Number, Part, Positive, Share, Whole
from metakd.runs.records import Measure, Model

__all__ = [
    "AblationRecord",
    "ComparisonRecord",
    "CostName",
    "EffectName",
    "EffectRecord",
    "FigureRecord",
    "GroupRecord",
    "NotComparable",
    "PairOfGroups",
    "PairOfRuns",
    "Parts",
    "RunRecord",
]

CostName = Literal["parameters", "macs", "task_macs", "latency_ms", "task_latency_ms"]
Parts = Literal["plain", "meta only", "distillation only", "fused"]
EffectName = Literal[
    "meta-learning",
    "distillation",
    "both",
    "interaction",
    "meta-learning on top of distillation",
    "distillation on top of meta-learning",
]
Several = Annotated[int, Strict(), Ge(2)]
Folders = Annotated[list[str], MinLen(1)]
Corrected = Annotated[
    Amount,
    Field(
        description="Half-width of the interval that belongs to p_adjusted: it excludes 0 exactly "
        "where that is below 0.05."
    ),
]


# Counts stay whole numbers.
Cost = Annotated[Count | Amount, WithJsonSchema({"minimum": 0, "type": "number"})]


class RunRecord(Part):
    """A run, whatever became of it."""

    path: str
    """Its folder, absolute."""
    name: str
    status: Literal["finished", "failed", "interrupted", "running", "damaged", "waiting", "pruned"]
    """`damaged`: its files cannot be read; `waiting`: a job of a multirun that did not begin;
    `pruned`: one that a search ended."""
    seed: Whole | None
    settings: dict[str, Any]
    """Those in which the runs differ; a group's choice is called by the group."""
    results: Annotated[
        dict[str, Any] | None,
        Field(json_schema_extra={"anyOf": [{"type": "null"}, {"$file": "results.schema.json"}]}),
    ]
    """results.json; null unless it finished."""
    reason: Maybe[str] = None
    """Why it has no results, where that is known."""
    stage: Maybe[str] = None
    warnings: Maybe[list[str]] = None
    """What the run recorded as suspicious; absent where there is nothing."""
    external_pretraining: Maybe[list[str]] = None
    """Which networks began with weights that were trained elsewhere; absent where none did."""


class PairOfRuns(Part):
    """The difference of two runs on the same evaluation tasks: run minus baseline."""

    run: str
    baseline: str
    model: Model
    shots: Count
    """0: all training images of a whole dataset, whose test images count as tasks."""
    measure: Measure
    tasks: Several
    """Those that both were evaluated on."""
    difference: Number
    ci95: Amount
    p: Share
    p_adjusted: Share


class NotComparable(Part):
    """Runs that cannot be compared, and why."""

    runs: Folders
    reason: str


class FigureRecord(Part):
    """What a group reached."""

    model: Model
    shots: Count
    """0: all training images of a whole dataset, whose test images count as tasks."""
    accuracy: Maybe[Share] = None
    mse: Maybe[Amount] = None
    ci95: Maybe[Amount] = None
    deviation: Maybe[Amount] = None
    seeds: Positive
    """Different networks. 1: ci95 is over tasks; more: over seeds, and deviation is their standard
    deviation."""
    diverged: Maybe[Share] = None
    """Share of tasks that diverged, of the run with most; absent where none did. In accuracy they
    count as wrong answers; of errors there is no figure then."""


class GroupRecord(Part):
    """A row of the tables: runs that differ in nothing but the seed."""

    runs: Folders
    seeds: list[Whole | None]
    settings: dict[str, Any]
    set: Count
    """Rows of one number were evaluated on the same tasks; those of two cannot be compared."""
    figures: list[FigureRecord]
    cost: dict[str, Cost]
    front: list[CostName]
    """Costs at which no other row of the set is better at that cost or a lower one."""


class PairOfGroups(Part):
    """The difference of two groups: over the common seeds where there are several."""

    runs: list[str]
    baselines: list[str]
    model: Model
    shots: Count
    """0: all training images of a whole dataset, whose test images count as tasks."""
    measure: Measure
    over: Literal["seeds", "tasks"]
    seeds: list[Whole | None]
    tasks: Several
    difference: Number
    ci95: Amount
    ci95_adjusted: Corrected
    p: Share
    p_adjusted: Share


class EffectRecord(Part):
    """What a part of the method adds."""

    effect: EffectName
    shots: Positive
    seeds: list[Whole]
    tasks: Several
    difference: Number
    ci95: Amount
    ci95_adjusted: Corrected
    p: Share
    p_adjusted: Share


class AblationRecord(Part):
    """Of `metakd ablate --json` only: which part helped."""

    algorithm: str
    distill: str
    parts: dict[Parts, list[str]]
    """The finished runs' folders, by ablation."""
    effects: list[EffectRecord]
    verdict: list[str]
    missing: list[str]
    """Runs that are not there, with the reason."""


class ComparisonRecord(File):
    """Runs side by side.

    What is not known is absent or null, never 0; fields that are not named here may be added
    without a change of `schema`.
    """

    model_config = ConfigDict(
        title="metakd compare --json",
        json_schema_extra={
            "required": ["schema", "baseline", "runs", "pairs", "not_comparable"],
        },
    )

    baseline: str | None
    """Folder of the run that was named with --baseline."""
    model: Model
    runs: Annotated[list[RunRecord], MinLen(1)]
    """Every run that was found, in that order."""
    pairs: list[PairOfRuns]
    """Without a baseline all with all, as far as they can be compared."""
    not_comparable: list[NotComparable]
    groups: list[GroupRecord]
    group_pairs: list[PairOfGroups]
    """The same as pairs, row by row."""
    notes: list[str]
    ablation: Maybe[AblationRecord] = None
