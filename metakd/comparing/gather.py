"""Finding runs below folders, and reading what they recorded."""

from __future__ import annotations

import difflib
import gc
import os
import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from metakd.comparing.usual import completed
from metakd.config.paths import with_paths_from
from metakd.errors import UserError
from metakd.plain_data import flat
from metakd.runs.folder import open_run
from metakd.runs.process import is_alive
from metakd.runs.record import read_file
from metakd.runs.records import Measurement, Results
from metakd.runs.records_run import RunInfo
from metakd.runs.records_sweep import JobRecord, SweepRecord

__all__ = ["Run", "gather", "read"]

OWN_FOLDERS = frozenset({"checkpoints", "figures", "evaluations", "compressions", "wandb"})
"""Subfolders of a run that are not searched for runs."""

SWEEP = "sweep.json"
"""In a multirun's folder: its jobs, also those that have no run."""

FINISHED = "finished"
INTERRUPTED = "interrupted"
DAMAGED = "damaged"
"""A run's status where its files cannot be read; the other ones are those of run.json."""

UNKNOWN = RunInfo()
"""Of a run whose run.json cannot be read."""


@dataclass(frozen=True, eq=False)
class Run:
    """A run of any status.

    Attributes:
        path: its folder, absolute.
        status: `finished`, `failed`, `interrupted`, `running`, `damaged`; `waiting` is a job of a
            multirun that did not begin, `pruned` one that a search ended.
        reason: why it did not finish or cannot be read, where that is known.
        info: run.json; nothing is known where that cannot be read.
        settings: its configuration by dotted name; empty if that cannot be read.
        results: results.json; None unless it finished.
    """

    path: Path
    status: str
    reason: str | None = None
    info: RunInfo = UNKNOWN
    settings: Mapping[str, Any] = field(default_factory=dict)
    results: Results | None = None

    @property
    def name(self) -> str:
        """Return the run's name, or its folder's if it recorded none."""
        name = self.settings.get("name")
        named = name if isinstance(name, str) and name and "${" not in name else self.path.name
        return f"{named} (ensemble of {len(self.members)})" if self.members else named

    @property
    def members(self) -> tuple[str, ...]:
        """Return the runs of whose students an ensemble consists; empty: it is none."""
        return tuple(self.info.members or ())

    @property
    def seed(self) -> int | None:
        """Return the run's seed, if it is known."""
        seed = self.settings.get("seed") if self.info.seed is None else self.info.seed
        return seed if isinstance(seed, int) and not isinstance(seed, bool) else None

    @property
    def is_evaluation(self) -> bool:
        """Tell whether this is a run's later evaluation (`metakd evaluate`)."""
        return self.info.evaluates is not None

    @cached_property
    def headlines(self) -> Mapping[str, Mapping[int, Measurement]]:
        """Return by model and number of shots the figures that stand for it.

        Where tasks diverged there may be no figure; it is known all the same what was measured.
        """
        found = {
            name: {
                shots: entry
                for shots, entry in model.headlines().items()
                if entry.value is not None or entry.diverged is not None
            }
            for name, model in (self.results.models if self.results else {}).items()
        }
        return {name: entries for name, entries in found.items() if entries}

    @property
    def warnings(self) -> list[str]:
        """Return what the run recorded as suspicious."""
        return self.info.warnings or []

    @property
    def outside(self) -> list[str]:
        """Return which of its networks began with weights that others have trained on other data.

        A checkpoint of our own, which `external_pretraining` lists, too, is none.
        """
        found = self.info.external_pretraining or []
        return [one for one in found if self.settings.get(f"{one.partition(':')[0]}.pretrained")]

    def network(self, model: str) -> Hashable:
        """Return what tells a model's network from others; several runs can share a teacher."""
        return (self.info.teacher or self) if model == "teacher" else self

    def figures(self, model: str) -> Hashable:
        """Return all that was measured of a model's answers; equal only of the same network.

        A single accuracy can be equal by chance: it is a count.
        """
        found = self.results.models.get(model) if self.results else None
        kept = {"fewshot_all", "whole_all", "by_group", "calibration", "validated"}
        return None if found is None else found.model_dump_json(include=kept)

    def cost(self, model: str, name: str) -> float | None:
        """Return a cost of one of the run's models; None if it was not measured."""
        measured = self.results.models.get(model) if self.results else None
        return None if measured is None else measured.cost.of(name)


def gather(
    paths: Sequence[Path], reader: Callable[[Path], Run] | None = None
) -> tuple[list[Run], list[str]]:
    """Return the runs in and below `paths`, each once, and notes on skipped paths.

    A multirun's folder, or any folder of folders, stands for the runs in it. A run's later
    evaluations count as runs only if they are named themselves.

    Args:
        paths: runs and folders that hold some.
        reader: what reads a run's folder; None: `read`.

    Raises:
        UserError: a path that does not exist, or no run at all.
    """
    found: dict[Path, Run | Path] = {}
    notes: list[str] = []
    for path in paths:
        if not path.exists():
            raise UserError(f"'{path}' does not exist.{_neighbour(path)}")
        if not path.is_dir():
            notes.append(f"'{path}' is a file and not a run's folder; skipped")
            continue
        here = list(_below(path, notes))
        if not here and len(paths) > 1:
            notes.append(f"there is no run in '{path}'")
        for one in here:
            place = one.path if isinstance(one, Run) else one
            found.setdefault(place.resolve(), one)
    if not found:
        where = ", ".join(f"'{p}'" for p in paths[:3]) + (" …" if len(paths) > 3 else "")
        raise UserError(
            f"there is no run in {where}; name a run's folder, such as outputs/NAME/DATE_TIME, "
            "or a folder that holds some"
        )
    reader = reader or read
    with _without_collecting():
        runs = [one if isinstance(one, Run) else reader(one) for one in found.values()]
    return _with_pruned(runs), [*notes, *_copies(runs)]


@contextmanager
def _without_collecting() -> Iterator[None]:
    """Pause Python's search for cycles: records have none, and of many it takes a tenth longer."""
    paused = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if paused:
            gc.enable()


def _below(path: Path, notes: list[str]) -> Iterable[Path | Run]:
    """Yield the folders of runs, and the jobs of multiruns that have no run yet."""
    top = os.path.abspath(path)

    def unreadable(error: OSError) -> None:
        notes.append(f"'{error.filename}' cannot be read ({(error.strerror or '').lower()})")

    for place, folders, files in os.walk(top, onerror=unreadable):
        # A run without its run.json is recognised by its results.
        is_run = "run.json" in files or {"results.json", "episodes.csv"} <= set(files)
        if is_run:
            yield Path(place)
        if SWEEP in files:
            yield from _without_run(Path(place), notes)
        hidden = OWN_FOLDERS if is_run else frozenset()
        folders[:] = sorted(
            (f for f in folders if f not in hidden and not f.startswith(".")), key=_natural
        )


def _without_run(sweep: Path, notes: list[str]) -> Iterable[Run]:
    """Yield the jobs of a multirun that never began, or failed before they had a run."""
    try:
        jobs = read_file(sweep / SWEEP, SweepRecord).jobs
    except UserError as error:
        notes.append(f"{error}; jobs without a run are not listed")
        return
    for job in jobs:
        folder = sweep / str(job.number)
        if not job.asked or (folder / "run.json").exists():
            continue
        status: str = job.status
        why = job.reason
        # Its process may have been killed before it could write anything.
        if status == "running" and _is_gone(job):
            status = INTERRUPTED
        if status == FINISHED:
            status, why = DAMAGED, "its run is missing"
        words = " ".join(job.overrides)
        yield Run(folder, status, f"{words}: {why}" if why else words)


def _copies(runs: Sequence[Run]) -> Iterator[str]:
    """Yield a note if folders of finished runs are copies of one another: no two runs are alike."""
    first: dict[Hashable, Run] = {}
    found: list[tuple[Run, Run]] = []
    for run in runs:
        info = run.info
        process = (info.host, info.pid, info.process_start, info.start, info.end)
        if run.results is None or None in process:
            continue
        other = first.setdefault(process, run)
        if other is not run and other.results is not None:
            same = other.results.content == run.results.content
            found += [(run, other)] if same else []
    if found:
        copy, run = found[0]
        more = f", and {len(found) - 1} more are copies, too" if len(found) > 1 else ""
        yield (
            f"'{copy.path}' is a copy of '{run.path}'{more}: each counts as a run of its own, and "
            "p is corrected for more comparisons than there are"
        )


def _with_pruned(runs: Sequence[Run]) -> list[Run]:
    """Set the status of runs that a search pruned; they record only an interruption."""
    pruned: dict[Path, set[str]] = {}
    found = []
    for run in runs:
        if run.status == INTERRUPTED:
            folder = run.path.parent
            if folder not in pruned:
                pruned[folder] = _pruned_jobs(folder / SWEEP)
            if run.path.name in pruned[folder]:
                run = replace(run, status="pruned", reason="pruned by the search")
        found.append(run)
    return found


def _pruned_jobs(file: Path) -> set[str]:
    try:
        jobs = read_file(file, SweepRecord).jobs if file.is_file() else []
    except UserError:
        return set()  # reported already for the jobs without a run
    return {str(job.number) for job in jobs if job.status == "pruned"}


def _is_gone(job: JobRecord) -> bool:
    known = job.pid is not None and job.host is not None
    return known and is_alive(job.pid, job.host, job.process_start) is False  # type: ignore[arg-type]


def _natural(name: str) -> list[tuple[int, int | str]]:
    """Return a sort key that puts job 10 after job 9."""
    return [(0, int(p)) if p.isdecimal() else (1, p) for p in re.split(r"(\d+)", name) if p]


def _neighbour(path: Path) -> str:
    try:
        names = [p.name for p in path.parent.iterdir() if p.is_dir()]
    except OSError:
        return ""
    match = difflib.get_close_matches(path.name, names, n=1, cutoff=0.5)
    return f" Did you mean '{path.parent / match[0]}'?" if match else ""


def read(path: Path) -> Run:
    """Return what the run in `path` recorded; damaged files make it a damaged run."""
    settings: Mapping[str, Any] = {}
    try:
        folder = open_run(path)
        info = folder.read_run()
    except UserError as error:
        return Run(path, DAMAGED, str(error))
    status = str(info.status)
    try:
        recorded = folder.read_config()
        if info.directory is not None:  # one folder typed in two ways, or two by the same words
            recorded = with_paths_from(recorded, info.directory)
        settings = completed(flat(recorded))
    except UserError as error:
        # A run that failed at once may have recorded nothing yet.
        reason = str(error) if status == FINISHED else info.error
        return Run(path, DAMAGED if status == FINISHED else status, reason, info)
    if status != FINISHED:
        return Run(path, status, info.error, info, settings)
    try:
        results = folder.read_results()
    except UserError as error:
        return Run(path, DAMAGED, str(error), info, settings)
    if info.evaluates is not None:
        info = _with_the_evaluated(path, info, info.evaluates)
    return Run(path, status, None, info, settings, results)


def _with_the_evaluated(path: Path, info: RunInfo, place: str) -> RunInfo:
    """Return what an evaluation recorded, with seed and teacher of the run that it evaluated."""
    try:
        evaluated = read_file(path / place / "run.json", RunInfo).content
    except UserError:
        return info
    return RunInfo.of(
        {k: evaluated[k] for k in ("seed", "teacher") if k in evaluated and not info.members}
        | info.content
    )
