"""A search from what is typed: checked, then run or resumed, and summarised."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from metakd.config.overrides import parse
from metakd.config.renamed import renamed_word
from metakd.errors import UserError
from metakd.runs.records_sweep import SearchRecord
from metakd.searching.corners import check_space, grid
from metakd.searching.journal import JOURNAL, require_optuna
from metakd.searching.outcome import report
from metakd.searching.plan import Search, plan, replan
from metakd.searching.source import SearchSource
from metakd.searching.study import Budget, Trials
from metakd.sweeps.driver import Driver, is_done
from metakd.sweeps.plan import placed
from metakd.sweeps.recipe import Recipe
from metakd.sweeps.run import check_places, check_recorded, opened
from metakd.sweeps.state import Sweep, is_outside, merged

__all__ = ["go_on", "searched", "start"]

KEPT = ("objectives", "seed")
"""Settings of a search that cannot change when it is resumed."""


def start(recipe: Recipe, words: Sequence[str], config_dir: str | None = None) -> int:
    """Search, and return the exit status: 0, or 1 if a trial failed; see `searched`."""
    return searched(recipe, words, config_dir)[0]


def searched(
    recipe: Recipe, words: Sequence[str], config_dir: str | None = None
) -> tuple[int, Sweep]:
    """Search; in a folder that holds this search already, resume it.

    Args:
        recipe: with a space.
        words: typed overrides.
        config_dir: the user's own configuration folder.

    Returns:
        the exit status: 0, or 1 if a trial failed; and the sweep with the status of each trial.

    Raises:
        UserError: a space that cannot be searched, or a folder that cannot be used; nothing ran.
        KeyboardInterrupt: the trials were asked to end, and have.
    """
    search = plan(recipe, words, config_dir)
    _check(search, config_dir)
    sweep = opened(search.base)
    try:
        if sweep.jobs or sweep.search is not None:
            _check_same(sweep, search)
            check_places(sweep, [search.words])
        sweep.directory = os.getcwd()
        sweep.config_dir = None if config_dir is None else os.path.abspath(config_dir)
        return _carry_out(sweep, search, ()), sweep
    finally:
        sweep.unlock()


def go_on(folder: Path, words: Sequence[str] = (), config_dir: str | None = None) -> int:
    """Resume the search in `folder`: `metakd train resume=FOLDER`.

    Args:
        folder: holds sweep.json with a search.
        words: `sweep.trials`, `sweep.jobs` and other settings of the search that may change;
            settings of paths and trackers; `plugins`.
        config_dir: the user's own configuration folder; None: the recorded one.

    Returns:
        the exit status: 0, or 1 if a trial failed.

    Raises:
        UserError, KeyboardInterrupt: as in `start`.
    """
    own = [word for word in words if word.startswith("sweep.")]
    parsed = parse([word for word in words if word not in own])
    extras = placed(parsed)
    for word in extras:
        if not is_outside(word):
            raise UserError(
                f"{word}: would make other trials of what is left of the search, which could not "
                "be compared; go on without, or search anew in another hydra.sweep.dir"
            )
    sweep = Sweep.opened(folder)
    try:
        check_recorded(sweep, {override.key_or_group for override in parsed})
        sweep.config_dir = config_dir or sweep.config_dir
        if not Path(sweep.directory).is_dir():  # the folder was moved from elsewhere
            sweep.directory = os.getcwd()
        kept = _search_of(sweep)
        record = kept.model_copy(update={"words": merged(kept.words, extras)})
        with contextlib.chdir(sweep.directory):
            search = replan(record, own, sweep.config_dir)
            _check(search, sweep.config_dir)
        _check_same(sweep, search)
        for job in sweep.jobs:
            if not is_done(sweep.run_folder(job)):
                job.overrides = merged(job.overrides, extras)
        return _carry_out(sweep, search, extras)
    finally:
        sweep.unlock()


def _check(search: Search, config_dir: str | None) -> None:
    """Check the search before anything is written."""
    require_optuna(search.settings.sampler)
    if search.settings.sampler == "grid":
        grid(search)
    check_space(search, config_dir)


def _carry_out(sweep: Sweep, search: Search, extras: Sequence[str]) -> int:
    settings, training = search.settings, search.base.config.meta_train
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    for note in (*search.notes, *_remarks(search)):
        console.print(note, markup=False)
    if sweep.jobs and not (sweep.folder / JOURNAL).exists():
        raise UserError(
            f"'{sweep.folder / JOURNAL}' is missing, so the search cannot be resumed; single "
            f"trials can: metakd train resume={sweep.folder / 'NUMBER'}"
        )
    sweep.search, sweep.parallel = search.record(), settings.jobs
    try:
        sweep.save()  # what is searched is known before the first trial is
    except OSError as error:
        raise UserError(f"'{sweep.folder}' cannot be written: {error.strerror}") from error
    trials = Trials(
        sweep.folder,
        search.parameters,
        search.fixed,
        settings,
        Budget(training.validate_every, training.iterations),
        grid(search) if settings.sampler == "grid" else None,
    )
    sweep.most = trials.most
    source = SearchSource(sweep, search, trials)
    status = Driver(sweep, extras, source=source).carry_out()
    for line in trials.remarks():
        console.print(line, markup=False)
    report(sweep, search, trials.study, Console())
    return status


def _remarks(search: Search) -> list[str]:
    """Return warnings on settings of the search that have no effect, or a doubtful one."""
    settings, training = search.settings, search.base.config.meta_train
    lines = []
    if settings.pruner != "none" and training.validate_every >= training.iterations:
        lines.append(
            f"sweep.pruner={settings.pruner} ends no trial: meta_train.validate_every="
            f"{training.validate_every} leaves no validation before the end"
        )
    conditional = [p.key for p in search.parameters if p.only_if]
    if settings.sampler == "gp" and conditional:
        lines.append(
            f"sweep.sampler=gp draws {', '.join(conditional)} at random, which not every trial "
            "has; sweep.sampler=tpe learns from them"
        )
    return lines


def _check_same(sweep: Sweep, search: Search) -> None:
    """Refuse to resume a different search in the same folder."""
    old, new = _search_of(sweep), search.record()
    settings, space = json.loads(json.dumps([new.settings, new.space]))
    found = ["space"] if old.space != space else []
    found += ["words"] if _evaluation_words(old.words) != _evaluation_words(new.words) else []
    found += [f"sweep.{k}" for k in KEPT if old.settings.get(k) != settings.get(k)]
    if found:
        raise UserError(
            f"'{sweep.folder}' holds another search (other {', '.join(found)}); choose another "
            f"hydra.sweep.dir, or go on with metakd train resume={sweep.folder}"
        )


def _search_of(sweep: Sweep) -> SearchRecord:
    if sweep.search is None:
        raise UserError(f"'{sweep.folder}' holds a multirun; choose another hydra.sweep.dir")
    return sweep.search


def _evaluation_words(words: Sequence[str]) -> list[str]:
    known = merged([renamed_word(word) for word in words])
    return sorted(word for word in known if not is_outside(word))
