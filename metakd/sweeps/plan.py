"""The plan of a multirun: its own settings, and the overrides of every job."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from metakd.config.checks import check
from metakd.config.compose import Composed, compose
from metakd.config.declared import declarations
from metakd.config.overrides import parse
from metakd.config.paths import PATH_KEYS, absolute
from metakd.config.schema import SweepConfig
from metakd.errors import UserError, nearest

__all__ = [
    "FOLDERS",
    "Asked",
    "asked_of",
    "combinations",
    "composed_jobs",
    "placed",
    "refuse_folders",
    "varying",
]

FOLDERS = ("hydra.sweep.dir", "hydra.mode")
"""Settings of the sweep itself that Hydra knows; jobs do not get them."""

OWN = ("sweep.jobs",)
"""Settings of the sweep itself that Hydra does not know."""

OF_A_SEARCH = tuple(
    f"sweep.{one.name}" for one in fields(SweepConfig) if f"sweep.{one.name}" not in OWN
)


@dataclass(frozen=True)
class Asked:
    """The settings that were typed for the sweep itself.

    Attributes:
        parallel: `sweep.jobs`, how many jobs run at a time; None: not typed.
        changed: `resume_changed=true`, the combinations may differ from the folder's.
        rest: the other words.
    """

    parallel: int | None
    changed: bool
    rest: list[str]


def asked_of(words: Sequence[str]) -> Asked:
    """Separate the sweep's own settings from the rest.

    Raises:
        UserError: an unknown setting, or an invalid value.
    """
    parallel, changed, rest = None, False, []
    for word in words:
        key, equals, value = word.partition("=")
        if key == "resume_changed" and equals:
            if value.lower() not in ("true", "false"):
                raise UserError(f"resume_changed={value}: expected true or false")
            changed = value.lower() == "true"
        elif key.startswith("sweep."):
            if key in OF_A_SEARCH:
                raise UserError(
                    f"{key} belongs to a search: type sweep=search, or another of metakd list sweep"
                )
            if key not in OWN:
                raise UserError(f"{key}: no such setting.{nearest(key, OWN)}")
            jobs = declarations(SweepConfig, "sweep.")["sweep.jobs"]
            if not value.isdecimal() or not jobs.holds(int(value)):
                raise UserError(f"{word}: expected a whole number {jobs.range}")
            parallel = int(value)
        else:
            rest.append(word)
    return Asked(parallel, changed, rest)


def combinations(overrides: Sequence[str]) -> tuple[list[list[str]], list[str]]:
    """Return the overrides of every job, and those of the sweep's folder.

    Raises:
        UserError: a sweep that cannot be written out as a list of jobs.
    """
    parsed = parse(asked_of(overrides).rest, sweeps=True)
    own = [o for o in parsed if o.key_or_group in FOLDERS]
    jobs = [o for o in parsed if o.key_or_group not in FOLDERS]
    refuse_folders(parsed)
    try:
        split = BasicSweeper.split_arguments(jobs, None)[0]
    except HydraException as error:
        raise UserError(f"-m: {error}; name a sweeper that can with hydra/sweeper=") from error
    seen: dict[tuple[str, ...], int] = {}
    varied = {o.key_or_group for o in jobs if o.is_sweep_override()}
    for number, words in enumerate(split):
        first = seen.setdefault(tuple(words), number)
        if first != number:
            said = " ".join(word for word in words if word.partition("=")[0] in varied)
            raise UserError(f"-m: jobs {first} and {number} would be the same run: {said}")
    return split, [o.input_line or "" for o in own]


def refuse_folders(parsed: Iterable[Override]) -> None:
    """Refuse words that a multirun cannot have.

    Raises:
        UserError: with what to type in place of it.
    """
    for override in parsed:
        if override.key_or_group in ("hydra.sweep.subdir", "hydra.run.dir"):
            raise UserError(
                f"{override.key_or_group}: jobs are numbered folders of hydra.sweep.dir; set that"
            )
        if override.key_or_group == "resume":
            raise UserError(
                "resume: to resume a multirun type metakd train resume=SWEEP_FOLDER without "
                "-m, or the same -m line with hydra.sweep.dir=SWEEP_FOLDER"
            )


def composed_jobs(
    jobs: Sequence[Sequence[str]], own: Sequence[str], config_dir: str | None
) -> list[Composed]:
    """Compose and check every job, before any of them starts.

    Raises:
        UserError: the first one that is impossible, with its combination.
    """
    found = []
    names = varying(dict(enumerate(jobs)))
    for number, job in enumerate(jobs):
        try:
            composed = compose([*job, *own], config_dir)
            check(composed.config)
        except UserError as error:
            hint = _several_paths(str(error), job)
            raise UserError(f"{error} (in the combination {names[number]}){hint}") from error
        found.append(composed)
    return found


def _several_paths(error: str, job: Sequence[str]) -> str:
    """Return how several paths are typed, where a path with a comma is what is wrong."""
    for word in job:
        key, _, value = word.partition("=")
        if key in PATH_KEYS and "," in value and error.startswith(f"{key}="):
            return f". A comma is part of a path; several are {key}=choice(A,B)"
    return ""


def varying(jobs: Mapping[int, Sequence[str]]) -> dict[int, str]:
    """Return by job the overrides that not all jobs share; all of them for a single job."""
    shared = set.intersection(*(set(words) for words in jobs.values())) if jobs else set()
    if len(jobs) == 1:
        shared = set()
    return {n: " ".join(w for w in words if w not in shared) for n, words in jobs.items()}


def placed(parsed: Iterable[Override]) -> list[str]:
    """Return overrides with absolute paths, so that they mean the same in any working directory."""
    words = []
    for override in parsed:
        value = override.value()
        if override.key_or_group in PATH_KEYS and isinstance(value, str) and value:
            place = absolute(override.key_or_group, value, Path.cwd())
            words.append(f"{override.key_or_group}={place}")
        else:
            words.append(override.input_line or "")
    return words
