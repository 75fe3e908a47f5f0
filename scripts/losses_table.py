"""Every distillation loss side by side, in episodes and on whole batches, as a markdown table.

    python scripts/losses_table.py --output outputs/losses --seeds 1 2 3
    python scripts/losses_table.py --output outputs/losses --data cifar_fs --learners batches
    python scripts/losses_table.py --output outputs/losses --factors 0.1 0.3 1 3 10
    python scripts/losses_table.py --output outputs/losses --losses dkd dkd+pkt

Each loss stands alone beside the labels, at its own weights times a factor; `+` adds losses up,
with the first one's weight of the labels. Of several factors the one with the best accuracy on
meta-validation tasks is shown, chosen on the first seed alone: the others have only that one made.
`none` is the student without a teacher. Teacher, start, images and evaluation tasks are the same
for all. A finished run is kept and not made again. Differences to `none` are of the same seed and
tasks; ± is the t interval over seeds, of one seed the interval over tasks. Cost: seconds of an
update over those without a teacher, median over the runs; the teacher's embeddings are kept where
the loss reads no features.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from algorithms_table import step_seconds

import metakd
from metakd.comparing.episodes import figures_by_task
from metakd.comparing.gather import read
from metakd.config.locate import Choices
from metakd.errors import UserError
from metakd.reports.statistics import over_seeds, paired_difference

NONE = "none"
COMMON = ("tracker=none", "student_alone=false", "warmstart=none", "evaluate.shots=[1,5]")
DATA = {
    "glyphs": ("teacher.width=64", "student.width=32", "evaluate.tasks=600"),
    "cifar_fs": ("experiment=cifar_fs/distilled_conv4", "student.width=32"),
}
LEARNERS = {
    "episodes": (
        "algorithm=protonet",
        "meta_train.optimizer=adam",
        "meta_train.lr=1e-3",
        "meta_train.schedule=cosine",
        "meta_train.weight_decay=0",
    ),
    "batches": ("algorithm=supervised",),
}
"""What is typed for each; the rate of whole batches lets a prototypical network collapse."""
APART = {
    "combine": "it has no term of its own",
    "kd_cifar": "kd with other weights",
    "kd_convex": "kd with other weights",
}
"""Choices of `distill` that are no losses of their own, and why."""
EPISODES_ONLY = ("prototypes",)
SHOTS = (1, 5)
PLUS = "+"


def losses() -> list[str]:
    """Return every loss that there is, `none` first."""
    return [NONE, *(n for n in Choices().of("distill") if n not in (NONE, *APART))]


def loss_or_sum(word: str) -> str:
    """Return `word` if it names a loss, or several that `+` joins.

    Raises:
        argparse.ArgumentTypeError: it does not.
    """
    names = word.split(PLUS)
    single = [name for name in losses() if name != NONE]
    if word != NONE and (unknown := [name for name in names if name not in single]):
        raise argparse.ArgumentTypeError(
            f"{unknown[0]!r} is no loss; choose from {', '.join(single)}"
        )
    if len({*names}) < len(names):
        raise argparse.ArgumentTypeError(f"{word!r} names a loss twice")
    return word


@dataclass(frozen=True)
class Row:
    """A loss at a factor of its weights, in one learner.

    Attributes:
        learner: `episodes` or `batches`.
        loss: name, or the names of several joined by `+`.
        factor: of its weights.
    """

    learner: str
    loss: str
    factor: float = 1.0

    def words(self, data: str, seed: int) -> tuple[str, ...]:
        """Return what is typed for its run."""
        own: tuple[str, ...] = (f"distill={self.loss}",)
        terms = self.loss.split(PLUS)
        if self.factor != 1.0 or len(terms) > 1:
            labels = metakd.compose(f"distill={terms[0]}").config.distill.ce_weight
            own = (
                "distill=combine",
                *(f"distill.terms.{name}={self.factor:g}" for name in terms),
                f"distill.ce_weight={labels:g}",
            )
        return (*DATA[data], *LEARNERS[self.learner], *COMMON, *own, f"seed={seed}")

    def folder(self, output: Path, data: str, seed: int) -> Path:
        """Return where its run lies."""
        return output / data / self.learner / f"{self.loss}_{self.factor:g}" / str(seed)


def validated(folder: Path) -> float:
    """Return the accuracy of a finished run's student on meta-validation tasks."""
    kept = folder / "validated.json"
    if not kept.exists():
        found = metakd.evaluate(folder, "evaluate.part=validate", "evaluate.shots=[]", quiet=True)
        kept.write_text(json.dumps(found["student"]["fewshot"]["accuracy"]))
    return float(json.loads(kept.read_text()))


def made(row: Row, output: Path, data: str, seed: int, typed: Sequence[str]) -> Path:
    """Return the folder of a run, made if it is not there."""
    folder = row.folder(output, data, seed)
    if not (folder / "results.json").exists():
        if (folder / "run.json").exists():
            metakd.resume(folder, quiet=True)
        else:
            words = (*row.words(data, seed), *typed, f"hydra.run.dir={folder}")
            metakd.train(*words, quiet=True)
    return folder


def by_task(folder: Path, shots: int) -> list[float]:
    """Return the student's accuracy on each evaluation task of a finished run."""
    return list(figures_by_task(read(folder), "student", shots).values())


def cell(values: Sequence[float], half: float | None = None) -> str:
    """Return percentages: the mean of `values`, with the t interval over seeds or the given one."""
    if len(values) > 1:
        mean, half = over_seeds(values)
    else:
        mean = values[0]
    return f"{100 * mean:.1f}" + ("" if half is None else f" ± {100 * half:.1f}")


def line(row: Row, folders: Sequence[Path], alone: Sequence[Path]) -> str:
    """Return a row of the table.

    Args:
        row: the loss.
        folders: its runs, by seed.
        alone: runs without a teacher, of the same seeds.
    """
    cells = [row.learner, row.loss, "" if row.loss == NONE else f"{row.factor:g}"]
    for shots in SHOTS:
        pairs, values = [], []
        for mine, other in zip(folders, alone, strict=True):
            own = list(figures_by_task(read(mine), "student", shots).values())
            values.append(statistics.fmean(own))
            pairs.append(
                paired_difference(
                    own, list(figures_by_task(read(other), "student", shots).values())
                )
            )
        gain = cell([p[0] for p in pairs], pairs[0][1])
        cells += [cell(values), "" if row.loss == NONE else gain]
    ratios = [
        mine / other
        for mine, other in zip(map(step_seconds, folders), map(step_seconds, alone), strict=True)
        if mine and other
    ]
    cells.append(f"{statistics.median(ratios):.2f}" if ratios and row.loss != NONE else "")
    return "| " + " | ".join(cells) + " |"


def best_of(rows: Sequence[Row], folders: Sequence[Path]) -> Row:
    """Return the row whose finished run is best on meta-validation tasks."""
    if len(rows) == 1:
        return rows[0]
    figures = dict(zip(rows, map(validated, folders), strict=True))
    return max(rows, key=lambda row: figures[row])


def main(argv: Sequence[str] | None = None) -> int:
    """Make the runs that are missing and print the table; return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--data", choices=DATA, default="glyphs")
    parser.add_argument("--learners", nargs="+", choices=LEARNERS, default=list(LEARNERS))
    parser.add_argument("--losses", nargs="+", type=loss_or_sum, default=losses())
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--factors", nargs="+", type=float, default=[1.0])
    parser.add_argument("--words", nargs="*", default=[], help="further settings of all runs")
    asked = parser.parse_args(argv)
    chosen = [NONE, *(name for name in asked.losses if name != NONE)]
    lines = [
        "| learner | loss | factor | 1-shot | minus none | 5-shot | minus none | cost |",
        "|" + " --- |" * 8,
    ]
    for learner in asked.learners:
        alone: list[Path] = []
        for loss in chosen:
            if learner == "batches" and {*loss.split(PLUS)} & {*EPISODES_ONLY}:
                continue
            factors = [1.0] if loss == NONE else asked.factors
            rows = [Row(learner, loss, factor) for factor in factors]

            def run(row: Row, seed: int) -> Path:
                return made(row, asked.output, asked.data, seed, asked.words)

            try:
                best = best_of(rows, [run(row, asked.seeds[0]) for row in rows])
                folders = [run(best, seed) for seed in asked.seeds]
            except UserError as error:
                print(f"losses_table: {loss}: {error}", file=sys.stderr)
                continue
            alone = alone or folders
            lines.append(line(best, folders, alone))
            print(lines[-1], file=sys.stderr, flush=True)
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
