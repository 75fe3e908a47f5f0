"""Rank distillation losses on CIFAR-100 by a short schedule, over seeds, as a markdown table.

    python scripts/cifar100_losses.py --output FOLDER [--pair resnet32x4_resnet8x4] [--table]
                                      [--seeds 0,1,2] [--losses alone,kd,dkd] [--epochs 30]
                                      [--teacher-epochs 60] [SETTING=VALUE ...]

Teacher and student of `experiment=cifar100/PAIR`, at half their widths, are trained for so many
epochs with the rate falling at the same shares of them, in the number format that suits the
processor (`precision=auto`). There is one teacher, of seed 0; after few epochs a deep one is hardly
better than a student, and has little to teach: `--teacher-epochs` trains it for longer. Every loss
has its published settings. Settings that are typed hold for all runs. A run that is there is not
made again, and one that was stopped goes on; `--table` only prints. Differences to the student
alone are of the same seed on the same test images.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from metakd.comparing.episodes import figures_by_task
from metakd.comparing.gather import Run, read
from metakd.reports.statistics import over_seeds, paired_difference
from metakd.runs.records import NO_SHOTS

__all__ = ["LOSSES", "command", "main", "table"]

HALF = {
    "resnet56_resnet20": ("teacher.width=8", "student.width=8"),
    "resnet32x4_resnet8x4": ("teacher.widths=[16,32,64,128]", "student.widths=[16,32,64,128]"),
}
RAMP = "distill.schedules.kd_weight={shape: ramp_up, share: 0.0833}"
LOSSES: Mapping[str, tuple[str, ...]] = {
    "alone": ("distill=none",),
    "kd": ("distill=kd_cifar",),
    "kd_standardised": ("distill=kd_standardised",),
    "dkd": ("distill=dkd", RAMP),
    "dist": ("distill=dist",),
    "dkd+dist": (
        "distill=combine",
        "distill.terms.dkd=1",
        "distill.terms.dist=1",
        "distill.schedules.terms.dkd={shape: ramp_up, share: 0.0833}",
    ),
    "crd": ("distill=crd",),
    "kd_standardised+crd": (
        "distill=combine",
        "distill.ce_weight=0.1",
        "distill.terms.kd=1",
        "distill.settings.kd.kd_weight=9",
        "distill.settings.kd.temperature=2",
        "distill.settings.kd.standardise=true",
        "distill.terms.crd=1",
    ),
}
"""What is typed for each row of the table."""
BASELINE = "alone"


def command(
    folder: Path, pair: str, loss: str, seed: int, epochs: tuple[int, int], typed: Sequence[str]
) -> list[str]:
    """Return the command of one run: the whole of it, or that which goes on with it.

    Args:
        folder: of the run.
        pair: of teacher and student.
        loss: a key of `LOSSES`.
        seed: of the student's training.
        epochs: of the teacher and of the student.
        typed: further settings.
    """
    start = [sys.executable, "-m", "metakd", "train"]
    if (folder / "run.json").exists():
        return [*start, f"resume={folder}"]
    return [
        *start,
        f"experiment=cifar100/{pair}",
        *HALF[pair],
        *LOSSES[loss],
        f"seed={seed}",
        f"pretrain.epochs={epochs[0]}",
        f"meta_train.epochs={epochs[1]}",
        "student_alone=false",
        "tracker=none",
        *typed,
        f"hydra.run.dir={folder}",
    ]


def table(runs: Mapping[str, Mapping[int, Run]]) -> str:
    """Return the table of finished runs, best loss first.

    Args:
        runs: by loss and seed.
    """
    figures = {
        loss: {seed: figures_by_task(run, "student", NO_SHOTS) for seed, run in own.items()}
        for loss, own in runs.items()
        if own
    }
    means = {
        loss: [sum(of.values()) / len(of) for of in own.values()] for loss, own in figures.items()
    }
    lines = [
        "| loss | seeds | top-1 (%) | best validation (%) | minus alone (points) |",
        "| --- | --- | --- | --- | --- |",
    ]
    for loss in sorted(means, key=lambda name: -sum(means[name]) / len(means[name])):
        values = means[loss]
        best = [state for run in runs[loss].values() if (state := _best(run)) is not None]
        chosen = f"{100 * sum(best) / len(best):.2f}" if best else ""
        gain = "" if loss == BASELINE else _gain(figures[loss], figures.get(BASELINE, {}))
        lines.append(f"| {loss} | {len(values)} | {_interval(values)} | {chosen} | {gain} |")
    return "\n".join(lines)


def _best(run: Run) -> float | None:
    """Return the student's accuracy on test images in its state of the best validation."""
    states = () if run.results is None else run.results.student.whole_all
    return next((entry.accuracy for entry in states if entry.state == "best_validation"), None)


def _interval(values: Sequence[float]) -> str:
    if len(values) < 2:
        return f"{100 * values[0]:.2f}"
    mean, half = over_seeds(values)
    return f"{100 * mean:.2f} ± {100 * half:.2f}"


def _gain(mine: Mapping[int, Mapping[int, float]], alone: Mapping[int, Mapping[int, float]]) -> str:
    """Return the difference over the common seeds; of a single one over its test images."""
    common = sorted(mine.keys() & alone.keys())
    pairs = [
        paired_difference(list(mine[seed].values()), list(alone[seed].values())) for seed in common
    ]
    if not pairs:
        return ""
    mean, half = pairs[0] if len(pairs) == 1 else over_seeds([mean for mean, _ in pairs])
    return f"{100 * mean:+.2f} ± {100 * half:.2f}"


def main(words: Sequence[str]) -> int:
    """Make the runs that are missing and print the table; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--pair", choices=HALF, default="resnet56_resnet20")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--losses", default=",".join(LOSSES))
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--teacher-epochs", type=int, help="default: as many as the student's")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("typed", nargs="*")
    asked = parser.parse_args(words)
    seeds, losses = [int(word) for word in asked.seeds.split(",")], asked.losses.split(",")
    unknown = {*losses} - {*LOSSES}
    if unknown:
        parser.error(f"--losses {', '.join(sorted(unknown))}: choose from {', '.join(LOSSES)}")
    epochs = (asked.teacher_epochs or asked.epochs, asked.epochs)
    found: dict[str, dict[int, Run]] = {loss: {} for loss in losses}
    for seed in seeds:  # all losses of a seed before the next one begins
        for loss in losses:
            folder = asked.output / asked.pair / loss / str(seed)
            if not asked.table and not (folder / "results.json").exists():
                own = command(folder, asked.pair, loss, seed, epochs, asked.typed)
                if subprocess.run(own, check=False).returncode:
                    print(f"{folder}: stopped; the same command goes on", file=sys.stderr)
                    return 1
            if (folder / "results.json").exists():
                found[loss][seed] = read(folder)
    print(table(found))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
