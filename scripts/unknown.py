"""How well a run's student tells pictures of new classes from pictures of the classes it was shown.

The threshold is the one that the run chose on meta-validation tasks; here it is tried on tasks of
the meta-test classes: half of the queries belong to a task's classes, half to others.

python scripts/unknown.py RUN [--tasks N] [--which student] [--markdown]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import metakd
from metakd.config.recorded import recorded_composed
from metakd.errors import UserError
from metakd.pipeline.prepare import prepare
from metakd.runs.folder import open_run
from metakd.using.calibration import RATES, evaluated_tasks
from metakd.using.known import SCORES, auroc, rejection_curve


def measured(run: Path, which: str, tasks: int, markdown: bool) -> list[str]:
    """Return the lines of the table."""
    opened = open_run(run)
    composed = recorded_composed(opened.path, opened.read_run())
    composed.config.student.checkpoint = composed.config.teacher.checkpoint = None
    composed.config.pretrain.enabled = True
    data = prepare(composed).data
    model = metakd.load(run, which)
    calibration = model.trained.calibration
    if not data.has_classes or calibration is None or not calibration.quantiles:
        raise UserError(f"run '{run}': no threshold was chosen for its {which}")
    how = model.how()
    evaluated = evaluated_tasks(
        model.trained.algorithm,
        data,
        split="test",
        ways=calibration.ways,
        shots=calibration.shots,
        queries=composed.config.task.queries,
        tasks=tasks,
        seed=composed.config.evaluate.seed,
        steps=model.steps,
        precision=how.precision,
    )
    known = calibration.scale * evaluated.known.double()
    unknown = calibration.scale * evaluated.unknown.double()
    right = (evaluated.known.argmax(-1) == evaluated.targets).double().mean()
    lines = [
        f"{which} of {run}: {calibration.ways} ways, {calibration.shots} shots, {tasks} tasks of "
        f"the meta-test classes, accuracy {100 * right:.1f} %, temperature "
        f"{1 / calibration.scale:.3g}",
        "",
        *_row(("AUROC", "meta-validation", "meta-test"), markdown, head=True),
    ]
    for name, score in SCORES.items():
        chosen = f"**{name}**" if name == calibration.score else name
        there = f"{calibration.auroc[name]:.3f}" if name in calibration.auroc else ""
        lines += _row((chosen, there, f"{auroc(score(known), score(unknown)):.3f}"), markdown)
    score = SCORES[calibration.score]
    curve = rejection_curve(score(known), score(unknown), calibration.quantiles, RATES)
    head = ("--unknown", "false alarms on meta-test", "strangers found")
    lines += ["", *_row(head, markdown, head=True)]
    for at in curve:
        shares = (f"{100 * at[name]:.1f} %" for name in ("false_alarms", "found"))
        lines += _row((f"{at['rate']:g}", *shares), markdown)
    return lines


def _row(cells: Sequence[str], markdown: bool, head: bool = False) -> list[str]:
    if not markdown:
        return ["".join(f"{cell:<28}" for cell in cells).rstrip()]
    rule = ["| " + " | ".join("---" for _ in cells) + " |"] if head else []
    return ["| " + " | ".join(cells) + " |", *rule]


def main(argv: Sequence[str]) -> int:
    """Print the table of a run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("run", type=Path)
    parser.add_argument("--tasks", type=int, default=300)
    parser.add_argument("--which", default="student")
    parser.add_argument("--markdown", action="store_true")
    asked = parser.parse_args(argv[1:])
    try:
        print("\n".join(measured(asked.run, asked.which, asked.tasks, asked.markdown)))
    except UserError as error:
        print(f"unknown: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
