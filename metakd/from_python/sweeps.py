"""Multiruns, searches and ablations from Python: run as on the command line, then read."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from metakd.errors import UserError
from metakd.from_python.results import Results, headline, html_table
from metakd.runs.folder import open_run
from metakd.sweeps.board import names_of
from metakd.sweeps.driver import Driver
from metakd.sweeps.run import begun
from metakd.sweeps.state import Sweep, is_sweep

if TYPE_CHECKING:
    from metakd.comparing.records import Records

__all__ = ["Ablation", "Jobs", "ablated", "swept"]


class Jobs(list[dict[str, Any]]):
    """A dictionary for each job of a multirun, in their order.

    Each has `job` (its number), `folder`, `overrides`, `status` (`finished`, `failed`, `pruned`
    …), of one that failed `reason`, and of a finished one `results` (results.json's content).

    Attributes:
        folder: the multirun's.
        status: 0, or 1 if a job failed.
    """

    def __init__(self, status: int, sweep: Sweep) -> None:
        super().__init__(_record(sweep, job.number) for job in sweep.asked)
        self.folder = str(sweep.folder)
        self.status = status
        self._names = names_of(sweep)

    def compare(self, **options: Any) -> Records:
        """Return the comparison of the runs; `options` are those of `metakd.compare`."""
        from metakd.comparing.records import records

        return records([self.folder], **options)

    def _rows(self) -> list[tuple[str, str, str, str]]:
        return [
            (
                str(one["job"]),
                self._names[one["job"]],
                one["status"],
                _said_of(one),
            )
            for one in self
        ]

    def __repr__(self) -> str:
        """Return a line for each job."""
        lines = ["  ".join(cell for cell in row if cell) for row in self._rows()]
        return "\n".join([*lines, self.folder])

    def _repr_html_(self) -> str:
        return html_table(("job", "settings", "status", "student"), self._rows())


class Ablation(Jobs):
    """The jobs of an ablation, and what it says.

    Attributes:
        verdicts: the sentences that `metakd ablate` prints.
    """

    def __init__(self, status: int, sweep: Sweep, verdicts: Sequence[str]) -> None:
        super().__init__(status, sweep)
        self.verdicts = list(verdicts)

    def __repr__(self) -> str:
        """Return a line for each job and the sentences."""
        return "\n".join([super().__repr__(), *self.verdicts])


def swept(words: Sequence[str], config_dir: str | None, quiet: bool) -> Jobs:
    """Carry a multirun or a search out, or go on with it (`resume=FOLDER`).

    Raises:
        UserError, KeyboardInterrupt: as `metakd.sweeps.run.start`.
    """
    from metakd.cli.sweep import complete, expanded
    from metakd.cli.train import resumed

    for one in words:
        if one.startswith(("hydra/launcher=", "hydra/sweeper=")):
            raise UserError(f"{one}: Hydra's plugins run from the command line alone")
    folder, changed, rest = resumed(words)
    with _said(quiet):
        if folder is not None:
            if not is_sweep(folder):
                raise UserError(f"resume={folder}: no multirun; a run goes on with metakd.resume")
            status = complete(folder, rest, config_dir, changed)
            return Jobs(status, Sweep.load(folder))
        recipe, typed = expanded(words, config_dir)
        if recipe is not None:
            from metakd.searching.run import searched

            return Jobs(*searched(recipe, typed, config_dir))
        sweep = begun(typed, config_dir)
        try:
            status = Driver(sweep).carry_out()
        finally:
            sweep.unlock()
    return Jobs(status, sweep)


def ablated(
    words: Sequence[str], config_dir: str | None, shots: Sequence[int], quiet: bool
) -> Ablation:
    """Carry an ablation out, or go on with it, and compare its runs.

    Raises:
        TypeError: shots of another type.
        UserError, KeyboardInterrupt: as `metakd.cli.ablate.run`.
    """
    from metakd.cli.ablate import carried_out, concluded
    from metakd.comparing.records import check_shots

    check_shots(shots)
    with _said(quiet):
        status, sweep = carried_out(words, config_dir, shots)
    return Ablation(status, sweep, concluded(sweep, shots))


@contextlib.contextmanager
def _said(quiet: bool) -> Iterator[None]:
    """Keep table and lines to itself if they are not wanted."""
    if not quiet:
        yield
        return
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def _said_of(job: dict[str, Any]) -> str:
    """Return the student's headline of a job, or why there is none."""
    found = headline(job["results"].record.student.headline) if "results" in job else ""
    return found or str(job.get("reason", ""))


def _record(sweep: Sweep, number: int) -> dict[str, Any]:
    job = next(job for job in sweep.asked if job.number == number)
    folder = sweep.run_folder(job)
    found: dict[str, Any] = {
        "job": number,
        "folder": str(folder),
        "overrides": list(job.overrides),
        "status": job.status,
    }
    if job.reason is not None:
        found["reason"] = job.reason
    if job.status == "finished":
        with contextlib.suppress(UserError):  # damaged since
            results = open_run(folder).read_results()
            found["results"] = Results({**results.content, "folder": str(folder)})
    return found
