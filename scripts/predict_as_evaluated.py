"""Does a student that is shown picture files answer as `metakd train` counted its answers?

Takes a finished run on a folder of class folders (or of train, val and test), draws its evaluation
tasks again, shows the run's student the support pictures of each task as files, by `metakd.load`
and `fit`, and asks it about the query pictures. Prints the accuracy beside that of results.json,
and the number of tasks whose accuracies differ.

    python scripts/predict_as_evaluated.py outputs/photos/2026-01-31_12-00-00 --tasks 100
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import metakd
from metakd.data.picture_files import pictures_in
from metakd.data.tasks import TaskBatch
from metakd.pipeline.again import evaluation_composed, prepare_evaluation
from metakd.pipeline.measure import evaluation_stage
from metakd.pipeline.prepared import Prepared
from metakd.runs.folder import open_run
from metakd.stages.evaluate import evaluation_tasks


def files_of(folder: Path, names: tuple[str, ...]) -> list[Path]:
    """Return the pictures of these classes in the order in which a run has them."""
    places = [folder / part for part in ("test", ".") if (folder / part / names[0]).is_dir()]
    return [path for name in names for path in pictures_in(places[0] / name)]


def recorded(run: Path, shots: int) -> list[float]:
    """Return the student's inductive accuracies on the run's tasks, from episodes.csv."""
    with (run / "episodes.csv").open(encoding="utf-8", newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["model"] == "student"]
    mode = rows[0]["batchnorm"]
    kept = [r for r in rows if int(r["shots"]) == shots and r["batchnorm"] == mode]
    steps = kept[0]["steps"]
    return [float(r["accuracy"]) for r in kept if r["steps"] == steps]


def tasks_of(prepared: Prepared, count: int) -> Iterator[TaskBatch]:
    """Yield the first so many evaluation tasks of a run, in batches."""
    config = prepared.config
    return evaluation_tasks(
        prepared.class_data,
        "test",
        config.task.evaluation(),
        tasks=count,
        seed=config.evaluate.seed,
        stage=evaluation_stage("test"),
    )


def verdict(found: Sequence[float], expected: Sequence[float], by: str) -> int:
    """Print both accuracies and how many tasks differ; return the exit status."""
    differ = sum(abs(a - b) > 1e-9 for a, b in zip(found, expected, strict=True))
    print(
        f"{len(found)} tasks: {100 * sum(found) / len(found):.2f} % by {by}, "
        f"{100 * sum(expected) / len(expected):.2f} % as evaluated, {differ} tasks differ"
    )
    return 1 if differ else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--tasks", type=int, default=100)
    asked = parser.parse_args()
    run = open_run(asked.run)
    prepared = prepare_evaluation(run, evaluation_composed(run))
    config, data = prepared.config, prepared.data
    images = data.split("test")
    files = files_of(Path(config.dataset.folder), images.class_names)
    assert len(files) == len(images), "the folder holds other pictures than the run saw"
    names = [images.class_names[label] for label in images.labels]
    student = metakd.load(run.path)
    expected = recorded(run.path, config.task.shots)[: asked.tasks]
    found = []
    for batch in tasks_of(prepared, len(expected)):
        for task in range(len(batch)):
            shown, asked_for = batch.support_index[task], batch.query_index[task]
            student.fit([files[i] for i in shown], [names[i] for i in shown])
            answers = student.predict([files[i] for i in asked_for])
            right = [a == names[i] for a, i in zip(answers, asked_for, strict=True)]
            found.append(sum(right) / len(right))
        print(f"{len(found)}/{len(expected)}", file=sys.stderr)
    return verdict(found, expected, "files")


if __name__ == "__main__":
    sys.exit(main())
