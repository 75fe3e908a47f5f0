"""Optuna asked and told: the next trial, whether to prune one, and its result.

The study is a journal in the multirun's folder. The process that holds the folder's lock is
its only writer. A killed process leaves running trials: they are resumed with the values that they
have, so that nothing is run twice.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from metakd.config.schema import SweepConfig
from metakd.searching.journal import JOURNAL, opened, quiet
from metakd.searching.repeats import (
    earlier,
    every_combination,
    is_repeated,
    key_of,
    tell_again,
)
from metakd.searching.space import Parameter, Range, Value, Values, is_active

if TYPE_CHECKING:
    import optuna
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

__all__ = ["Budget", "Trials"]

HOPELESS = "hopeless"
"""User attribute of a pruned trial: the meta-iterations that it had done."""

PATIENCE = 10
"""Repeated suggestions in a row after which a new combination is drawn at random."""

LIMIT = 100
"""Repeated suggestions in a row that end a search."""


@dataclass(frozen=True)
class Budget:
    """Meta-iterations of a trial: between two validations, and in total."""

    between: int
    whole: int


class Trials:
    """The trials of a search, kept in `folder`.

    Args:
        folder: the multirun's; locked by this process.
        parameters: conditions first.
        fixed: values of settings that are not searched, as far as conditions name them.
        settings: how to search, without `auto`.
        budget: of a trial, for pruners.
        grid: all trials, where they are known in advance.

    Raises:
        UserError: the journal cannot be read or written.
    """

    def __init__(
        self,
        folder: Path,
        parameters: Sequence[Parameter],
        fixed: Values,
        settings: SweepConfig,
        budget: Budget,
        grid: Iterable[Values] | None = None,
    ) -> None:
        self.parameters = parameters
        self.fixed = fixed
        self.settings = settings
        self._live: dict[int, optuna.Trial] = {}
        self.study = opened(folder / JOURNAL, settings.objectives)
        self.study.pruner = _pruner(settings, budget)
        self.most = settings.trials or 0
        self._every = every_combination(parameters, fixed)
        self._stuck = False
        if self._every is not None and grid is None:
            self.most = min(self.most, len(self._every))
        if grid is not None:
            self._enqueue(list(grid))
            known = len(self.study.get_trials(deepcopy=False))
            self.most = min(settings.trials or known, known)

    def ask(self) -> tuple[int, dict[str, Value]] | None:
        """Return number and values of the next trial; None if there are no more.

        Settings of an earlier trial are not returned: its result is reported again. So the numbers
        of trials that are run have gaps.
        """
        from optuna.trial import TrialState

        repeats = 0
        while True:
            trials = self.study.get_trials(deepcopy=False)
            waiting = [t.number for t in trials if t.state == TrialState.WAITING]
            if len(trials) - len(waiting) - self.repeated() >= self.most:
                return None
            if repeats >= LIMIT:
                self._stuck = True
                return None
            if not waiting and self._every is not None:
                left = self._left(trials)
                if not left:
                    return None
                if repeats >= PATIENCE:
                    self.study.enqueue_trial(left[self._draw(len(trials), len(left))])
                    waiting = [len(trials)]
            # Each trial has a sampler of its own: what it suggests depends on the results so
            # far, and not on whether this process was killed in between.
            number = waiting[0] if waiting else len(trials)
            self.study.sampler = self._sampler(number, alone=repeats >= PATIENCE)
            with quiet():
                trial = self.study.ask()
                values = self._decide(trial)
                before = earlier(self.study, trial.number, trial.params)
                if before is None:
                    self._live[trial.number] = trial
                    return trial.number, values
                tell_again(self.study, trial, before)
            repeats += 1

    def repeated(self) -> int:
        """Return how many trials were not run, since an earlier one had the same settings."""
        return sum(map(is_repeated, self.study.get_trials(deepcopy=False)))

    def remarks(self) -> list[str]:
        """Return lines on why the search had fewer trials than requested."""
        lines = []
        repeated, asked = self.repeated(), self.settings.trials or 0
        if repeated:
            lines.append(
                f"{repeated} suggestions repeated the settings of an earlier trial, which would "
                "give the same result; they were not run"
            )
        if self._every is not None and asked > len(self._every):
            lines.append(
                f"the space has {len(self._every)} combinations; sweep.trials={asked} is more than "
                "that"
            )
        if self._stuck:
            lines.append(
                f"the search ends early: {LIMIT} suggestions in a row repeated earlier trials"
            )
        return lines

    def open_trials(self, known: Collection[int] = ()) -> dict[int, dict[str, Value]]:
        """Return number and values of the trials that are neither complete, pruned nor failed.

        A killed process may have left one with values missing; they are drawn now.

        Args:
            known: those that have a job; others may repeat an earlier trial.
        """
        from optuna.trial import TrialState

        found = {}
        for frozen in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            self.study.sampler = self._sampler(frozen.number)
            trial = self._trial(frozen.number)
            with quiet():
                values = self._decide(trial)
                before = earlier(self.study, trial.number, trial.params)
                if before is None or trial.number in known:
                    found[trial.number] = values
                else:
                    tell_again(self.study, trial, before)
        return found

    def note(self, number: int, done: int, value: float) -> None:
        """Record a trial's validation, for comparison with later ones.

        Args:
            number: of the trial.
            done: meta-iterations that it had done by then.
            value: of the objective.
        """
        if done not in self.study.get_trials(deepcopy=False)[number].intermediate_values:
            with quiet():
                self._trial(number).report(value, done)

    def report(self, number: int, done: int, value: float) -> bool:
        """Report a trial's validation; return whether it is to be pruned."""
        self.note(number, done, value)
        trial = self._trial(number)
        with quiet():
            hopeless = done >= self.settings.prune_from and trial.should_prune()
        if hopeless:
            trial.set_user_attr(HOPELESS, done)
        return hopeless

    def was_hopeless(self, number: int) -> int | None:
        """Return after how many meta-iterations a trial was pruned, None if it was not."""
        found = self.study.get_trials(deepcopy=False)[number].user_attrs.get(HOPELESS)
        return found if isinstance(found, int) else None

    def knows(self, number: int) -> bool:
        """Tell whether a trial exists."""
        return number < len(self.study.get_trials(deepcopy=False))

    def is_open(self, number: int) -> bool:
        """Tell whether a trial has no result yet."""
        trials = self.study.get_trials(deepcopy=False)
        return number < len(trials) and not trials[number].state.is_finished()

    def tell(self, number: int, values: Sequence[float] | None) -> None:
        """Record a trial's objectives; None: it was pruned, or has no figures."""
        from optuna.trial import TrialState

        if not self.is_open(number):
            return
        state = TrialState.COMPLETE
        if values is None:
            pruned = self.was_hopeless(number) is not None
            state = TrialState.PRUNED if pruned else TrialState.FAIL
        with quiet():
            self.study.tell(number, None if values is None else list(values), state=state)
        self._live.pop(number, None)

    def _trial(self, number: int) -> optuna.Trial:
        """Return a running trial, also one that a killed process left.

        Optuna can resume one only by its number in the storage.
        """
        from optuna.trial import Trial

        if number not in self._live:
            frozen = self.study.get_trials(deepcopy=False)[number]
            self._live[number] = Trial(self.study, frozen._trial_id)
        return self._live[number]

    def _decide(self, trial: optuna.Trial) -> dict[str, Value]:
        """Let Optuna choose a value for each parameter whose conditions hold."""
        values: dict[str, Value] = {}
        searched = [p.key for p in self.parameters]
        for parameter in self.parameters:
            if is_active(parameter, searched, self.fixed, values):
                values[parameter.key] = _suggest(trial, parameter)
        return values

    def _enqueue(self, grid: Sequence[Values]) -> None:
        known = len(self.study.get_trials(deepcopy=False))
        for values in grid[known:]:
            self.study.enqueue_trial(dict(values))

    def _left(self, trials: Sequence[FrozenTrial]) -> list[dict[str, Value]]:
        """Return the combinations of a finite space that have no trial."""
        tried = {key_of(trial.params) for trial in trials}
        return [values for values in self._every or () if key_of(values) not in tried]

    def _draw(self, number: int, below: int) -> int:
        """Return an integer from 0 to `below` - 1, a function of the seed and the trial."""
        import numpy as np

        words = np.random.SeedSequence([self.settings.seed, number]).generate_state(1)
        return int(words[0]) % below

    def _sampler(self, number: int, alone: bool = False) -> BaseSampler:
        """Return the sampler of a trial; `alone`: one that ignores other trials."""
        from optuna import samplers

        seed, startup = self._draw(number, 1 << 32), self.settings.startup
        with quiet():
            if alone:
                return samplers.RandomSampler(seed=seed)
            if self.settings.sampler == "gp":
                return samplers.GPSampler(
                    seed=seed, n_startup_trials=startup, warn_independent_sampling=False
                )
            if self.settings.sampler == "tpe":
                return samplers.TPESampler(seed=seed, n_startup_trials=startup)
        return samplers.RandomSampler(seed=seed)  # with a grid every trial is known in advance


def _suggest(trial: optuna.Trial, parameter: Parameter) -> Value:
    key, domain = parameter.key, parameter.domain
    if not isinstance(domain, Range):
        found: Value = trial.suggest_categorical(key, domain.values)
        return found
    if domain.whole:
        low, high, step = int(domain.low), int(domain.high), int(domain.step or 1)
        return trial.suggest_int(key, low, high, step=step, log=domain.log)
    value = trial.suggest_float(key, domain.low, domain.high, step=domain.step, log=domain.log)
    return value if domain.step is None else float(f"{value:.12g}")


def _pruner(settings: SweepConfig, budget: Budget) -> BasePruner:
    from optuna import pruners

    first = max(settings.prune_from, budget.between)
    if settings.pruner == "median":
        return pruners.MedianPruner(
            n_startup_trials=settings.prune_after, n_warmup_steps=settings.prune_from
        )
    if settings.pruner == "halving":
        return pruners.SuccessiveHalvingPruner(min_resource=first)
    if settings.pruner == "hyperband":
        return pruners.HyperbandPruner(min_resource=first, max_resource=max(first, budget.whole))
    return pruners.NopPruner()
