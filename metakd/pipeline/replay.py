"""`metakd train replay=RUN`: what was not finite in a run that failed for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from metakd.config.recorded import recorded_composed
from metakd.errors import UserError
from metakd.pipeline.cards import known_of
from metakd.pipeline.generations import train_generations
from metakd.pipeline.learners import get_teacher, train_student
from metakd.pipeline.prepare import prepare
from metakd.pipeline.prepared import Prepared
from metakd.pipeline.target import fine_tune_student
from metakd.runs.checkpoints import load_state
from metakd.runs.folder import open_run
from metakd.runs.journal import Journal
from metakd.stages.recorder import Recorder
from metakd.stages.replay import Replay, Replayed, Report
from metakd.tracking.progress import Progress

__all__ = ["replay"]


def replay(
    path: Path,
    overrides: Sequence[str] = (),
    config_dir: str | Path | None = None,
    *,
    quiet: bool = False,
) -> Report:
    """Take the gradients of the update again that was not finite, task by task; change nothing.

    Args:
        path: the run's folder.
        overrides: what is to differ, to see whether it helps (`algorithm.inner_lr=0.01`).
        config_dir: folder of the user's own config files.
        quiet: print nothing.

    Raises:
        UserError: not a run, or none of its updates was not finite.
    """
    run = open_run(path)
    failure = load_state(run.checkpoints, "nonfinite")
    if failure is None:
        raise UserError(
            f"run '{path}' keeps no update that was not finite (checkpoints/nonfinite.pt); there "
            "is nothing to replay"
        )
    info = run.read_run()
    composed = recorded_composed(run.path, info, overrides, config_dir)
    prepared = prepare(composed, known_of(run, info, composed))
    journal = Journal(run.checkpoints)
    journal.open(mend=False)
    recorder = Replay(journal, failure, Progress(quiet=quiet))
    try:
        _again(prepared, recorder, str(failure["stage"]))
    except Replayed as found:
        if not quiet:
            _print(found.report)
        return found.report
    raise UserError(f"run '{path}' has no stage '{failure['stage']}' with these settings")


def _again(prepared: Prepared, recorder: Recorder, stage: str) -> None:
    """Go through the stages as a run does, up to the one that is looked at."""
    taught = get_teacher(prepared, recorder)
    suffix = "_alone" if stage.endswith("_alone") else ""
    if suffix:
        student, last = train_student(prepared, recorder, None, suffix), None
    else:
        students, last = train_generations(prepared, recorder, taught)
        student = students[-1]
    teacher = None if last is None else last.frozen
    fine_tune_student(prepared, recorder, student, teacher, suffix)


def _print(report: Report) -> None:
    console = Console()
    console.print(f"{report.stage}, step {report.step}: in the run, {report.reason}")
    if report.parameters:
        console.print(f"not finite before the update already: {', '.join(report.parameters)}")
    if not report.same_tasks:
        console.print("the tasks are not those that the run had")
    if report.tasks:
        table = Table(
            "task", "classes", "loss", "not finite", "query loss after 0, 1 … inner steps"
        )
        for task in report.tasks:
            table.add_row(
                str(task.number),
                " ".join(map(str, task.classes)),
                f"{task.loss:.4g}",
                task.problem or "",
                " ".join(f"{x:.4g}" for x in task.query_losses),
            )
        console.print(table)
    console.print(f"now: {report.problem or 'everything is finite'}")
