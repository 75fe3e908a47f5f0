"""run.json: what, when, where, and how it ended."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from metakd.runs.record import (
    Amount,
    Count,
    File,
    Flag,
    Maybe,
    Number,
    Part,
    Positive,
    PositiveNumber,
    Whole,
)

__all__ = ["RunInfo"]

Sha = Annotated[str, Field(json_schema_extra={"pattern": "^[0-9a-f]{64}$"})]


_OF = {
    "features": ("mean", "std", "columns", "label", "missing"),
    "text": ("reads", "length", "lower", "text", "label"),
    "pictures": ("mean", "std", "channels", "height", "width", "reading"),
}
"""By kind of input, what has to be said of it."""


def _required(*kinds: str) -> dict[str, Any]:
    """Return the conditions of a JSON schema; the last kind is that of an input without one."""
    kind, *others = kinds
    if not others:
        return {"required": list(_OF[kind])}
    return {
        "if": {"properties": {"kind": {"const": kind}}, "required": ["kind"]},
        "then": {"required": list(_OF[kind])},
        "else": _required(*others),
    }


class InputOf(Part):
    """What a network expects of its input: pictures, columns of numbers, or texts (`kind`)."""

    model_config = ConfigDict(json_schema_extra=_required(*_OF))

    kind: Literal["pictures", "features", "text"] = "pictures"
    channels: Maybe[Positive] = None
    height: Maybe[Positive] = None
    width: Maybe[Positive] = None
    mean: Maybe[list[Number]] = None
    """Of each channel, where pixels are from 0 to 1; of each column."""
    std: Maybe[list[PositiveNumber]] = None
    reading: Maybe[dict[str, Any]] = None
    """How image files are read."""
    columns: Maybe[list[str]] = None
    """Names of the columns of a table, in order."""
    label: Maybe[str] = None
    """Name of its column of classes."""
    text: Maybe[str] = None
    """Name of the column of texts."""
    reads: Maybe[Literal["bytes", "ngrams", "tokens"]] = None
    """What of a text becomes the numbers that the network takes."""
    length: Maybe[Positive] = None
    """Most of these that are read of a text."""
    lower: Maybe[Flag] = None
    """Small letters only."""
    tokenizer: Maybe[str] = None
    """JSON of the library `tokenizers`, where tokens are read."""
    size: Maybe[Positive] = None
    """Tokens of a vocabulary that is learned, at most."""
    buckets: Maybe[Positive] = None
    """Numbers that n-grams are hashed to."""
    sizes: Maybe[list[Positive]] = None
    """Characters of n-grams."""
    missing: Maybe[Literal["refuse", "mean"]] = None
    """What becomes of cells without a value."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        for name in _OF[self.kind]:
            if getattr(self, name) is None:
                raise ValueError(f"has no '{name}'")
        return self


class Inputs(Part):
    """What the networks expect of their input; the header of each file of weights has the same."""

    student: Maybe[InputOf] = None
    teacher: Maybe[InputOf] = None


class Resumption(Part):
    """One time that the run was resumed."""

    time: Maybe[Number] = None
    pid: Maybe[Positive] = None
    host: Maybe[str] = None
    process_start: str | None = None
    command: Maybe[str] = None


class RunInfo(File):
    """What, when, where, and how it ended.

    The file of an evaluation has `evaluates` instead of the fields of training. Fields that are
    not named here may be added without a change of `schema`.
    """

    model_config = ConfigDict(
        title="run.json of a MetaKD run",
        json_schema_extra={
            "required": ["schema", "status", "stage", "pid", "host"],
            "allOf": [
                {
                    "if": {"properties": {"status": {"const": "finished"}}},
                    "then": {
                        "required": ["start", "end"],
                        "properties": {"end": {"type": "number"}},
                    },
                },
                {
                    "if": {"properties": {"status": {"const": "running"}}},
                    "then": {"properties": {"end": {"type": "null"}}},
                },
                {
                    "if": {"required": ["command"]},
                    "then": {
                        "required": [
                            "seed",
                            "device",
                            "precision",
                            "packages",
                            "python",
                            "data_checksum",
                        ]
                    },
                },
            ],
        },
    )
    needed: ClassVar[tuple[str, ...]] = ("status",)

    status: Maybe[Literal["running", "interrupted", "failed", "finished"]] = None
    stage: str | None = None
    """The stage that it is in, or was in last."""
    stage_steps: Count | None = None
    """Number of steps of that stage."""
    pid: Maybe[Positive] = None
    host: Maybe[str] = None
    process_start: str | None = None
    """When the process started, as an opaque word: a later one may have the same number."""
    start: Number | None = None
    """Seconds since 1970."""
    end: Number | None = None
    """Seconds since 1970."""
    command: Maybe[str] = None
    """What was typed."""
    directory: Maybe[str] = None
    """Where it was typed."""
    packages: Maybe[dict[str, str]] = None
    """Versions."""
    environment: Maybe[dict[str, str]] = None
    """The variables that can decide figures or where data is, where they are set."""
    python: Maybe[str] = None
    platform: Maybe[str] = None
    processor: Maybe[str] = None
    gpus: Maybe[list[str]] = None
    cpus: Positive | None = None
    threads: Maybe[Positive] = None
    """Of one operation."""
    processes: Maybe[Positive] = None
    """How many of torchrun's processes shared the run; absent: one."""
    git_commit: Maybe[Annotated[str, Field(json_schema_extra={"pattern": "^[0-9a-f]{40,64}$"})]] = (
        None
    )
    git_dirty: Maybe[Flag] = None
    git_diff: Maybe[str] = None
    """`git diff HEAD` of a clone whose files differ from the commit, cut after 65536 bytes."""
    git_diff_sha256: Maybe[Sha] = None
    """Of the whole difference."""
    git_diff_bytes: Maybe[Annotated[Positive, Field(json_schema_extra={"minimum": 65537})]] = None
    """Length of the whole difference, where `git_diff` was cut."""
    seed: Maybe[Whole] = None
    device: Maybe[str] = None
    precision: Maybe[str] = None
    deterministic: Maybe[Flag] = None
    data_checksum: Maybe[str] = None
    """SHA-256 of the prepared data."""
    unlabelled_checksum: Maybe[str] = None
    """SHA-256 of the further examples without labels (`warmstart.unlabelled`)."""
    unlabelled_held: Maybe[Positive] = None
    """How many of them are of meta-validation or meta-test classes, where any was kept."""
    data_notes: Maybe[list[str]] = None
    """Warnings about the data, such as images that could not be read."""
    external_pretraining: Maybe[list[str]] = None
    """Which networks began with weights that were trained elsewhere."""
    preprocessing: Maybe[Inputs] = None
    teacher_scale: Maybe[Amount] = None
    """What the teacher's cosines are multiplied by to become logits."""
    teacher: Maybe[Sha] = None
    """SHA-256 of the teacher's weights."""
    error: Maybe[str] = None
    """What went wrong, of a run that failed."""
    warnings: Maybe[list[str]] = None
    """What the run's figures give reason to doubt, a line each; absent where nothing does."""
    resumed: Maybe[list[Resumption]] = None
    """An entry for each time that the run was resumed."""
    evaluates: Maybe[str] = None
    """Of an evaluation: the run that it evaluated, relative to its folder."""
    members: Maybe[list[str]] = None
    """Of the evaluation of an ensemble: the runs whose students it consists of, likewise."""
    reproduces: Maybe[str] = None
    """Of a run made by `metakd reproduce`: the run that it repeats, relative to its folder."""
    wandb_run_id: Maybe[str] = None
    wandb_mode: Maybe[str] = None
    wandb_url: Maybe[str] = None
    wandb_dir: Maybe[str] = None
    wandb_sync: Maybe[str] = None
    """The command that uploads an offline run to W&B."""
