"""Adversarial meta-transfer against what it is made of, on the same tasks.

    python scripts/adversarial_comparison.py --experiment adversarial/glyphs --seeds 1 2 3
    python scripts/adversarial_comparison.py --experiment adversarial/cifar_fs --seeds 1

The arms share networks, pre-trained teacher, warm start, training tasks and number of updates:

* adversarial: the experiment file as it is;
* no game: the same with algorithm.options.game_loss=none (the offsets stay);
* co_meta: teacher and student learn from one another, no generator;
* frozen: first-order MAML, the pre-trained teacher stays as it is (its prototypes teach);
* alone: first-order MAML without teacher (the twin of the adversarial run).

Prints each arm's accuracy and the paired difference to it of `adversarial` (over tasks within a
seed; over seeds the t interval), from episodes.csv. Runs that are there already are read.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path

from algorithms_table import run_all

from metakd.reports.statistics import mean_ci95, over_seeds, paired_difference

ARMS: dict[str, list[str]] = {
    "adversarial": [],
    "no game": [
        *("algorithm.options.game_loss=none", "algorithm.options.game_weight=0"),
        "student_alone=false",
    ],
    "co_meta": ["algorithm=fomaml", "distill.teacher_mode=co_meta", "student_alone=false"],
    "frozen": ["algorithm=fomaml", "student_alone=false"],
}
SHORT = (
    "meta_train.iterations=3",
    "meta_train.validate_tasks=20",
    "pretrain.epochs=1",
    "warmstart.epochs=0",
    "evaluate.tasks=20",
    "teacher.width=8",
    "student.width=4",
)


def values(folder: Path, model: str, shots: int) -> list[float]:
    """Return a model's accuracy on each evaluation task, inductive, at the headline's steps."""
    with (folder / "episodes.csv").open(newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["model"] == model]
    steps = rows[0]["steps"]  # the headline is written first
    chosen = [r for r in rows if r["batchnorm"] != "transductive" and r["steps"] == steps]
    return [float(r["accuracy"]) for r in chosen if int(r["shots"]) == shots]


def command(experiment: str, arm: str, seed: int, folder: Path, typed: Sequence[str]) -> list[str]:
    """Return the command of an arm's run; what makes the arm comes after what was typed."""
    return [
        *(sys.executable, "-m", "metakd", "train", f"experiment={experiment}"),
        *("tracker=none", "evaluate.transductive=false", "evaluate.steps=[]"),
        *(f"seed={seed}", *typed, *ARMS[arm], f"hydra.run.dir={folder}"),
    ]


def over(pairs: Sequence[tuple[float, float]]) -> str:
    """Return the mean over seeds with its t interval, or one seed's own interval."""
    if len(pairs) == 1:
        return f"{100 * pairs[0][0]:.1f} ± {100 * pairs[0][1]:.1f}"
    mean, half = over_seeds([p[0] for p in pairs])
    return f"{100 * mean:.1f} ± {100 * half:.1f}"


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--experiment", default="adversarial/glyphs")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1])
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--out", type=Path, default=Path("outputs/adversarial_comparison"))
    parser.add_argument("--short", action="store_true", help="a few steps only: shows that it runs")
    parser.add_argument("overrides", nargs="*", help="further settings, after --")
    asked = parser.parse_args()
    extra = [*(SHORT if asked.short else ()), *asked.overrides]
    place = asked.out / asked.experiment.replace("/", "_")
    jobs = {}
    for seed in asked.seeds:
        for arm in ARMS:
            folder = place / arm.replace(" ", "_") / f"seed{seed}"
            jobs[folder] = command(asked.experiment, arm, seed, folder, extra)
    run_all(jobs, asked.jobs)
    first = {s: place / "adversarial" / f"seed{s}" for s in asked.seeds}
    print(
        "| arm | model | " + " | ".join(f"{s}-shot | adversarial minus it" for s in (1, 5)) + " |"
    )
    print("|---" * 6 + "|")
    for arm, model in [
        *((a, m) for a in ARMS for m in ("student", "teacher")),
        ("alone", "student_alone"),
    ]:
        folder_of = "adversarial" if arm == "alone" else arm.replace(" ", "_")
        folders = {s: place / folder_of / f"seed{s}" for s in asked.seeds}
        if not all((f / "results.json").exists() for f in folders.values()):
            continue
        cells = [arm, model.removesuffix("_alone")]
        for shots in (1, 5):
            found = {s: values(f, model, shots) for s, f in folders.items()}
            cells.append(over([mean_ci95(v) for v in found.values()]))
            rival = "teacher" if model == "teacher" else "student"
            same = arm == "adversarial"
            cells.append(
                ""
                if same
                else over(
                    [
                        paired_difference(values(first[s], rival, shots), found[s])
                        for s in asked.seeds
                    ]
                )
            )
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
