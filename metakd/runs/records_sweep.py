"""sweep.json: what a multirun was asked for, and what became of each of its jobs."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, ConfigDict, Field

from metakd.runs.record import Count, File, Flag, Maybe, Number, Part, Positive, Whole

__all__ = ["JobRecord", "SearchRecord", "SweepRecord"]

Status = Literal["waiting", "running", "finished", "failed", "interrupted", "pruned"]


def _no_option(word: str) -> str:
    if word.startswith("-"):
        raise ValueError("holds an option, not an override")
    return word


Word = Annotated[str, AfterValidator(_no_option), Field(json_schema_extra={"pattern": "^(?!-)"})]


class JobRecord(Part):
    """One job."""

    number: Count
    """And name of its folder in the multirun's."""
    overrides: list[Word]
    """What is typed for it."""
    status: Status
    reason: str | None = None
    """Why it failed or stopped, one line."""
    pid: Whole | None = None
    """Of the process that is or was at work on it."""
    process_start: str | None = None
    host: str | None = None
    seconds: Number = 0.0
    """That its processes have taken so far."""
    device: str = "auto"
    """The configuration's, which decides whether it is given a GPU."""
    asked: Flag = True
    """Whether it belongs to the combinations as they were typed last."""


class SearchRecord(Part):
    """What is searched, and how."""

    recipe: str
    """Name of the file under conf/sweep."""
    settings: dict[str, Any]
    """How: `sweep.KEY`."""
    space: dict[str, Any]
    """The parameters by the settings' names."""
    words: list[Word]
    """Overrides of every trial."""


class SweepRecord(File):
    """A multirun: what was asked, and what became of each job."""

    model_config = ConfigDict(
        title="sweep.json of a multirun",
        json_schema_extra={
            "required": ["schema", "status", "start", "parallel", "directory", "jobs"]
        },
    )
    remedy: ClassVar[str] = "single jobs still go on with metakd train resume=FOLDER/NUMBER"

    status: Status = "interrupted"
    pid: Maybe[Positive] = None
    host: Maybe[str] = None
    process_start: str | None = None
    start: Number = 0.0
    """Seconds since 1970."""
    parallel: Positive = 1
    """Jobs at a time."""
    directory: str = ""
    """Where it was typed; relative paths of its overrides count from there."""
    config_dir: str | None = None
    """The user's own configuration folder, absolute."""
    search: Maybe[SearchRecord] = None
    """Of a search; absent: all jobs are known."""
    jobs: list[JobRecord]
