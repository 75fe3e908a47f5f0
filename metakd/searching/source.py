"""The trials of a search as jobs of a multirun: asked for, watched, evaluated from their files."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from metakd.errors import UserError
from metakd.reports.doubts import divergence
from metakd.runs.folder import open_run
from metakd.searching.journal import JOURNAL
from metakd.searching.plan import Search
from metakd.searching.settings import MEASURES
from metakd.searching.study import Trials
from metakd.sweeps.driver import is_done
from metakd.sweeps.state import Job, Sweep
from metakd.sweeps.watch import Watch

__all__ = ["SearchSource", "measured"]


class SearchSource:
    """Provides the jobs of the multirun's driver; job N is trial N.

    Args:
        sweep: whose jobs they are; those that an earlier process has begun are taken over.
        search: what is searched.
        trials: Optuna's.

    Raises:
        UserError: a job has no trial in the journal.
    """

    def __init__(self, sweep: Sweep, search: Search, trials: Trials) -> None:
        self.sweep = sweep
        self.search = search
        self.trials = trials
        self._watches: dict[int, Watch] = {}
        self._ended: set[int] = set()
        self._take_over()

    def ask(self) -> Job | None:
        """Return the job of the next trial; None if there are no more."""
        asked = self.trials.ask()
        if asked is None:
            self.sweep.most = 0  # there will be no more jobs
            return None
        return self._job(*asked)

    def look(self, running: Collection[int]) -> list[int]:
        """Report the validations; return the jobs whose trial is to be pruned, each once."""
        if self.search.settings.pruner == "none":
            return []
        hopeless = [
            number
            for number in running
            if number not in self._ended
            and any(self.trials.report(number, *seen) for seen in self._validations(number))
        ]
        self._ended.update(hopeless)
        return hopeless

    def tell(self, job: Job) -> None:
        """Record the result of a job that has ended.

        A trial that failed or was stopped stays open: it can still be completed.
        """
        folder = self.sweep.run_folder(job)
        if is_done(folder):
            if self.search.settings.pruner != "none" and self.trials.is_open(job.number):
                for seen in self._validations(job.number):
                    self.trials.note(job.number, *seen)
            try:
                self.trials.tell(job.number, measured(folder, self.search.settings.objectives))
            except UserError as error:
                job.status, job.reason = "failed", str(error)
                self.trials.tell(job.number, None)  # its run is finished: it cannot be completed
            return
        done = self.trials.was_hopeless(job.number)
        if done is not None:
            self.trials.tell(job.number, None)
            job.status, job.reason = "pruned", f"pruned after {done} meta-iterations"

    def _validations(self, number: int) -> list[tuple[int, float]]:
        """Return a trial's new validations: (iterations, value) each."""
        folder = self.sweep.folder
        fresh = Watch(folder / str(number), folder / f"{number}.log")
        watch = self._watches.setdefault(number, fresh)
        watch.look()
        found = sorted(watch.validations.items())
        watch.validations.clear()
        return found

    def _take_over(self) -> None:
        """Match jobs with trials, whenever an earlier process was killed."""
        numbers = {job.number for job in self.sweep.jobs}
        missing = sorted(n for n in numbers if not self.trials.knows(n))
        if missing:
            raise UserError(
                f"'{self.sweep.folder / JOURNAL}': lacks trial {missing[0]}, which has a job; "
                f"resume that one with metakd train resume={self.sweep.folder / 'NUMBER'}"
            )
        for number, values in self.trials.open_trials(numbers).items():
            if number not in numbers:
                self.sweep.jobs.append(self._job(number, values))
        self.sweep.jobs.sort(key=lambda job: job.number)
        for job in self.sweep.jobs:
            if job.status != "finished":
                self.tell(job)

    def _job(self, number: int, values: dict[str, str | int | float | bool | None]) -> Job:
        return Job(number, self.search.trial_words(values), device=self.search.base.config.device)


def measured(run: Path, objectives: Sequence[str]) -> list[float]:
    """Return the objectives of a finished run, from its results.json.

    Raises:
        UserError: it has none of that name, or cannot be read.
    """
    student = open_run(run).read_results().student
    found = []
    for name in objectives:
        head = student.headline
        value = getattr(head, name, None) if name in MEASURES else student.cost.of(name)
        if value is None:
            if name in MEASURES and head is not None and head.diverged:
                raise UserError(divergence("student", head))
            raise UserError(f"'{run}': its results do not hold the objective {name}")
        found.append(float(value))
    return found
