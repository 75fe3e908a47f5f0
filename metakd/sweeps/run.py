"""A multirun from what is typed: all of it checked first, then run or resumed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from metakd.config.compose import Composed
from metakd.config.declared import is_bookkeeping
from metakd.config.overrides import parse
from metakd.config.paths import PATH_KEYS, absolute
from metakd.config.recorded import differences
from metakd.errors import UserError
from metakd.sweeps.driver import Driver, is_done
from metakd.sweeps.plan import FOLDERS, asked_of, combinations, composed_jobs, placed
from metakd.sweeps.state import FILE, Job, Sweep, is_outside, is_sweep, merged, setting_of

__all__ = ["begun", "check_places", "check_recorded", "go_on", "opened", "start"]


def start(words: Sequence[str], config_dir: str | None = None) -> int:
    """Run every combination; in a folder that holds this sweep already, the remaining ones.

    Returns:
        the exit status: 0, or 1 if a job failed.

    Raises:
        UserError: a combination that is impossible, or a folder that cannot be used; nothing ran.
        KeyboardInterrupt: the jobs were asked to end, and have.
    """
    sweep = begun(words, config_dir)
    try:
        return Driver(sweep).carry_out()
    finally:
        sweep.unlock()


def begun(words: Sequence[str], config_dir: str | None = None) -> Sweep:
    """Return the sweep that `words` describe: checked, with its folder, and locked.

    Raises:
        UserError: as in `start`.
    """
    asked = asked_of(words)
    jobs, own = combinations(asked.rest)
    composed = composed_jobs(jobs, own, config_dir)
    sweep = opened(composed[0])
    try:
        if sweep.search is not None:
            raise UserError(
                f"'{sweep.folder}' holds a search; choose another hydra.sweep.dir, or resume it "
                f"with metakd train resume={sweep.folder}"
            )
        found = sweep.others(jobs) if sweep.jobs else []
        if found and not asked.changed:
            raise UserError(
                f"multirun '{sweep.folder}' has other combinations: {'; '.join(found)}. Choose "
                "another hydra.sweep.dir or, to run the new ones beside the old, type "
                "resume_changed=true"
            )
        check_places(sweep, jobs)
        sweep.adopt(jobs, [one.config.device for one in composed])
        sweep.parallel = asked.parallel or sweep.parallel
        sweep.directory = os.getcwd()
        sweep.config_dir = None if config_dir is None else os.path.abspath(config_dir)
    except BaseException:  # also on Ctrl-C: release the lock
        sweep.unlock()
        raise
    return sweep


def go_on(
    folder: Path,
    words: Sequence[str] = (),
    config_dir: str | None = None,
    changed: bool = False,
    subcommand: str = "train",
) -> int:
    """Complete the sweep in `folder`: `metakd train resume=FOLDER`.

    Args:
        folder: holds sweep.json.
        words: `sweep.jobs`, settings of paths and trackers, `plugins`; with `changed` any
            others, for the jobs that are not finished.
        config_dir: the user's own configuration folder; None: the recorded one.
        changed: `resume_changed=true` was typed.
        subcommand: of metakd that resumes it, for messages.

    Returns:
        the exit status: 0, or 1 if a job failed.

    Raises:
        UserError, KeyboardInterrupt: as in `start`.
    """
    asked = asked_of(words)
    parsed = parse(asked.rest)
    for override in parsed:
        if override.is_hydra_override() or override.is_sweep_override():
            raise UserError(f"{override.input_line}: a resumed multirun does not take this")
    sweep = Sweep.opened(folder)
    try:
        check_recorded(sweep, {override.key_or_group for override in parsed})
        extras = placed(parsed)
        sweep.config_dir = config_dir or sweep.config_dir
        sweep.parallel = asked.parallel or sweep.parallel
        if not Path(sweep.directory).is_dir():  # the folder was moved from elsewhere
            sweep.directory = os.getcwd()
        open_jobs = [job for job in sweep.asked if not is_done(sweep.run_folder(job))]
        with contextlib.chdir(sweep.directory):
            _check_changes(sweep, open_jobs or sweep.asked, extras, changed)
        late = [word for word in extras if not is_outside(word) and setting_of(word) != "plugins"]
        if late and not open_jobs:
            print(f"all jobs are finished already: {' '.join(late)} changed nothing")
        for job in open_jobs:
            job.overrides = merged(job.overrides, extras)
        return Driver(sweep, extras, changed, subcommand=subcommand).carry_out()
    finally:
        sweep.unlock()


def _check_changes(sweep: Sweep, jobs: Sequence[Job], extras: Sequence[str], changed: bool) -> None:
    """Compose the jobs, and refuse settings that would change their results.

    Args:
        sweep: whose jobs they are.
        jobs: those that are not finished; all, if there are none.
        extras: what is typed.
        changed: whether their results may change.
    """
    after = composed_jobs([merged(j.overrides, extras) for j in jobs], [], sweep.config_dir)
    if changed or all(is_outside(word) for word in extras):
        return
    plugins = [word for word in extras if word.startswith("plugins=")]
    before = composed_jobs([merged(j.overrides, plugins) for j in jobs], [], sweep.config_dir)
    for job, old, new in zip(jobs, before, after, strict=True):
        lines = differences(old.plain(), new.plain())
        found = [line for line in lines if not is_bookkeeping(line.partition(":")[0])]
        if found:
            raise UserError(
                f"job {job.number} of multirun '{sweep.folder}' has another configuration: "
                f"{'; '.join(found)}. Leave these out, or, to change the remaining "
                "jobs, type resume_changed=true"
            )


def check_places(sweep: Sweep, jobs: Iterable[Sequence[str]]) -> None:
    """Refuse relative paths that mean another place than where the multirun was typed first.

    Args:
        sweep: as it was read; a new one has no directory yet.
        jobs: overrides that are typed now.

    Raises:
        UserError: with both places.
    """
    if not sweep.directory:
        return
    for override in parse(sorted({word for words in jobs for word in words})):
        key, value = override.key_or_group, override.value()
        if key not in PATH_KEYS or is_bookkeeping(key) or not isinstance(value, str):
            continue
        then, now = (absolute(key, value, Path(p)) for p in (sweep.directory, os.getcwd()))
        # A project that was moved as a whole has left nothing there.
        if value and os.path.realpath(then) != os.path.realpath(now) and Path(then).exists():
            raise UserError(
                f"{key}={value}: multirun '{sweep.folder}' was typed in '{sweep.directory}', where "
                f"this is '{then}'; type it there, or metakd train resume={sweep.folder}"
            )


def check_recorded(sweep: Sweep, typed: set[str]) -> None:
    """Refuse a recorded job that would do more than train; sweep.json may come from someone else.

    Args:
        sweep: as it was read.
        typed: keys of what is typed now.

    Raises:
        UserError: naming the job, or the plugins that have to be typed.
    """
    recorded = [(f"job {job.number}", job.overrides) for job in sweep.asked]
    if sweep.search is not None:
        recorded.append(("the search", sweep.search.words))
    for who, words in recorded:
        for override in parse(words):
            key = override.key_or_group
            if key == "plugins" and key not in typed:
                raise UserError(
                    f"multirun '{sweep.folder}' used plugins; if you trust these modules, type "
                    f"{override.input_line}"
                )
            if key in (*FOLDERS, "hydra.run.dir", "resume", "replay"):
                raise UserError(f"'{sweep.folder / FILE}': {who} must not have {key}")


def opened(first: Composed) -> Sweep:
    """Return the sweep of the typed folder if it holds one, else a new one; locked.

    Args:
        first: configuration of one of its jobs.

    Raises:
        UserError: the folder holds something else, or cannot be made.
    """
    folder = first.sweep_dir
    if "hydra.sweep.dir" not in first.typed:
        folder = _made_unique(folder)
    elif is_sweep(folder):
        return Sweep.opened(folder)
    else:
        try:
            inside = list(folder.iterdir()) if folder.is_dir() else []
            if any((path / "run.json").exists() for path in (folder, *inside)):
                raise UserError(
                    f"hydra.sweep.dir: '{folder}' holds runs, but no multirun; choose another"
                )
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder}: cannot be made: {error.strerror}") from error
    sweep = Sweep(folder, [])
    sweep.lock()
    if is_sweep(folder):  # another process ran the same sweep at the same time and has finished it
        sweep.unlock()
        return Sweep.opened(folder)
    return sweep


def _made_unique(wanted: Path) -> Path:
    """Create a folder that no other process has."""
    try:
        wanted.parent.mkdir(parents=True, exist_ok=True)
        for number in range(1000):
            folder = wanted if number == 0 else wanted.with_name(f"{wanted.name}_{number}")
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
                return folder
    except OSError as error:
        raise UserError(f"{wanted}: cannot be made: {error.strerror}") from error
    raise UserError(f"{wanted}: exists already, and so do its numbered variants")
