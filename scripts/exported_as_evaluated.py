"""Does a bundle's run.py, shown PNG files, answer as `metakd train` counted its student's answers?

Takes a finished run on pictures and a bundle that was exported of it, writes the run's evaluation
tasks as PNG files, a folder for each class, and calls `python run.py --examples … …` for each task
in a process in which neither torch nor MetaKD can be imported. Prints the accuracy beside that of
results.json, and the number of tasks whose accuracies differ.

    python scripts/exported_as_evaluated.py RUN BUNDLE --tasks 100
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from predict_as_evaluated import recorded, tasks_of, verdict
from torch import Tensor

from metakd.data.tasks import TaskBatch
from metakd.pipeline.again import evaluation_composed, prepare_evaluation
from metakd.runs.folder import open_run

BLOCKED = ("torch", "torchvision", "metakd")


def write(folder: Path, task: TaskBatch, examples: Tensor) -> None:
    """Write a task's pictures as `few` and `new`, by class."""
    assert task.support_index is not None
    assert task.query_index is not None
    sides = (
        ("few", task.support_index[0], task.support_targets[0]),
        ("new", task.query_index[0], task.query_targets[0]),
    )
    for name, index, targets in sides:
        for number, (place, target) in enumerate(zip(index, targets, strict=True)):
            (folder / name / f"{target}").mkdir(parents=True, exist_ok=True)
            pixels = examples[place].permute(1, 2, 0).numpy()
            picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
            picture.save(folder / name / f"{target}" / f"{number}.png")


def accuracy(bundle: Path, task: Path, blocked: Path) -> float:
    """Return the accuracy that run.py prints."""
    script = bundle.resolve() / "run.py"
    words = [sys.executable, str(script), "--examples", "few", "new", "--json"]
    env = {**os.environ, "PYTHONPATH": str(blocked)}
    done = subprocess.run(words, cwd=task, env=env, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return float(json.loads(done.stdout)["accuracy"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--tasks", type=int, default=100)
    asked = parser.parse_args()
    run = open_run(asked.run)
    prepared = prepare_evaluation(run, evaluation_composed(run, ["device=cpu"]))
    config, data = prepared.config, prepared.class_data
    expected = recorded(run.path, config.task.shots)[: asked.tasks]
    found: list[float] = []
    with tempfile.TemporaryDirectory() as temporary:
        blocked = Path(temporary, "blocked")
        blocked.mkdir()
        for name in BLOCKED:
            (blocked / f"{name}.py").write_text("raise ImportError('blocked')\n")
        for batch in tasks_of(prepared, len(expected)):
            for i in range(len(batch)):
                task = Path(temporary, f"task{len(found)}")
                write(task, batch[i : i + 1], data.split("test").examples)
                found.append(accuracy(asked.bundle, task, blocked))
            print(f"{len(found)}/{len(expected)}", file=sys.stderr)
    return verdict(found, expected, "run.py")


if __name__ == "__main__":
    sys.exit(main())
