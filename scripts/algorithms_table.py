"""Train every algorithm on glyphs with and without distillation, and print one table.

    python scripts/algorithms_table.py --seeds 1 2 3 --jobs 2
    python scripts/algorithms_table.py --algorithms maml ridge --seeds 1 --short   # seconds

Each run is a process of its own, so that its peak memory is its own. Trained for 5-way 1-shot and
judged with 1 and 5 shots on the same evaluation tasks; `alone` is the undistilled twin of the same
run, on the same tasks and with the same number of updates. Seconds per meta-iteration: the median
over the steps of meta-training with distillation, validation left out. Runs that lie in the
output folder already are read, not made again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from metakd.config.locate import Choices, content_of
from metakd.reports.statistics import over_seeds

GRADIENT = ["meta_train.iterations=300", "algorithm.inner_lr=0.1", "algorithm.inner_steps=3"]
METRIC = ["meta_train.iterations=300"]

OWN: dict[str, list[str]] = {
    "relation": [*METRIC, "algorithm.options.loss=cross_entropy", "algorithm.options.score=vote"],
    "imaml": ["meta_train.iterations=150", "algorithm.inner_steps_test=16"],
    "reptile": [
        "task.train_shots=5",
        "meta_train.iterations=300",
        "meta_train.optimizer=plain_sgd",
        # With the published rates (1 and Adam 0.001) 300 iterations undo the warm start.
        "meta_train.lr=0.2",
        "meta_train.schedule=linear",
        "algorithm.inner_lr=0.02",
        "algorithm.inner_steps_test=20",
    ],
    "adversarial": [*GRADIENT, "distill=kd"],
}
"""What is typed beside algorithms that need something else than others of their kind."""


def supports(algorithm: str) -> dict[str, Any]:
    """Return the facts that an algorithm's file states."""
    return content_of(Choices().file("algorithm", algorithm)).get("supports", {})


def settings(algorithm: str) -> list[str]:
    """Return what is typed beside an algorithm; everything else is the default run's."""
    return OWN.get(algorithm) or (GRADIENT if supports(algorithm).get("adapts") else METRIC)


COMMON = (
    "distill=embedding",
    "tracker=none",
    "evaluate.transductive=false",
    "evaluate.steps=[]",
    "evaluate.tasks=300",
    "meta_train.validate_every=75",
    "meta_train.validate_tasks=60",
    "algorithm.inner_steps_test=5",
)
SHORT = (
    "meta_train.iterations=3",
    "meta_train.validate_tasks=20",
    "pretrain.epochs=1",
    "warmstart.epochs=1",
    "evaluate.tasks=20",
    "teacher.width=8",
    "algorithm.inner_steps_test=1",
)


def command(algorithm: str, seed: int, folder: Path, extra: Sequence[str]) -> list[str]:
    """Return the command line of one run."""
    return [
        *(sys.executable, "-m", "metakd", "train", f"algorithm={algorithm}", f"seed={seed}"),
        *COMMON,
        *settings(algorithm),
        *extra,
        f"hydra.run.dir={folder}",
    ]


def untrained(algorithm: str) -> list[str]:
    """Return what makes a run of `algorithm` one that never trained its student."""
    words = ["meta_train.iterations=0", "distill=none", "warmstart=none"]
    if supports(algorithm).get("trained_start"):  # it refuses to begin untrained
        words += ["algorithm=protonet", "algorithm.distance=cosine"]
    return words


def run_all(jobs: dict[Path, list[str]], at_once: int) -> None:
    """Run the commands of folders without results, `at_once` at a time; note their memory."""
    waiting = [(f, c) for f, c in jobs.items() if not (f / "results.json").exists()]
    running: dict[int, tuple[Path, float]] = {}
    # Cores that this process may use, which can be fewer than there are.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    environment = {**os.environ, "OMP_NUM_THREADS": str(max(1, (cores or 1) // at_once))}
    while waiting or running:
        while waiting and len(running) < at_once:
            folder, words = waiting.pop(0)
            folder.parent.mkdir(parents=True, exist_ok=True)
            with (folder.parent / f"{folder.name}.log").open("wb") as log:
                process = subprocess.Popen(words, stdout=log, stderr=log, env=environment)
            running[process.pid] = (folder, time.perf_counter())
        pid, status, usage = os.wait4(-1, 0)
        folder, began = running.pop(pid)
        taken = time.perf_counter() - began
        print(f"{folder}: status {os.waitstatus_to_exitcode(status)}, {taken:.0f} s", flush=True)
        if status == 0:
            (folder / "process.json").write_text(
                json.dumps({"seconds": taken, "peak_bytes": usage.ru_maxrss * 1024})
            )


def step_seconds(folder: Path) -> float | None:
    """Return the median seconds of a meta-iteration; None if too few were logged."""
    points = []
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        entry = json.loads(line)
        if entry["stage"] == "meta_train":
            points.append((entry["step"], entry["time"], "validate/accuracy" in entry["metrics"]))
    spans = [
        (t1 - t0) / (s1 - s0)
        for (s0, t0, validated), (s1, t1, validates) in itertools.pairwise(points)
        if not validated and not validates
    ]
    return statistics.median(spans) if spans else None


def spread(values: Sequence[float]) -> str:
    """Return mean and 95 % t interval over seeds, in percent."""
    if len(values) < 2:
        return f"{100 * values[0]:.1f}"
    mean, half = over_seeds(values)
    return f"{100 * mean:.1f} ± {100 * half:.1f}"


def row(algorithm: str, folders: Sequence[Path], untrained: Path) -> str:
    """Return the table's line of one algorithm."""
    runs = [json.loads((f / "results.json").read_text()) for f in folders]
    cells = [algorithm]
    for shots in (1, 5):
        for model in ("student", "student_alone"):
            values = [accuracy(r, model, shots) for r in runs]
            cells.append(spread([v for v in values if v is not None]))
        gains = [next(g["difference"] for g in r["gains"] if g["shots"] == shots) for r in runs]
        cells.append(spread(gains))
    start = json.loads((untrained / "results.json").read_text())
    cells.append(spread([accuracy(start, "student", 1) or 0.0]))
    seconds = [s for s in map(step_seconds, folders) if s is not None]
    cells.append(f"{statistics.median(seconds):.3f}" if seconds else "")
    notes = [f / "process.json" for f in folders]
    memory = [json.loads(n.read_text())["peak_bytes"] for n in notes if n.exists()]
    cells.append(f"{max(memory) / 2**20:.0f}" if memory else "")
    return "| " + " | ".join(cells) + " |"


def accuracy(results: dict[str, Any], model: str, shots: int) -> float | None:
    """Return a model's accuracy with so many shots."""
    for entry in results[model]["fewshot_all"]:
        if entry["shots"] == shots:
            return float(entry["accuracy"])
    return None


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    every = list(Choices().of("algorithm"))
    parser.add_argument("--algorithms", nargs="+", default=every, choices=every)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--out", type=Path, default=Path("outputs/algorithms_table"))
    parser.add_argument("--short", action="store_true", help="a few steps only: shows that it runs")
    parser.add_argument("overrides", nargs="*", help="further settings, after --")
    asked = parser.parse_args()
    extra = [*(SHORT if asked.short else ()), *asked.overrides]
    jobs: dict[Path, list[str]] = {}
    for algorithm in asked.algorithms:
        for seed in asked.seeds:
            folder = asked.out / algorithm / f"seed{seed}"
            jobs[folder] = command(algorithm, seed, folder, extra)
        start = asked.out / algorithm / "untrained"
        jobs[start] = command(algorithm, asked.seeds[0], start, [*extra, *untrained(algorithm)])
    run_all(jobs, asked.jobs)
    print(
        "| algorithm | 1-shot distilled | alone | gain | 5-shot distilled | alone | gain "
        "| untrained, 1-shot | s / meta-iteration | peak MiB |"
    )
    print("|---" * 10 + "|")
    for algorithm in asked.algorithms:
        folders = [asked.out / algorithm / f"seed{seed}" for seed in asked.seeds]
        if all((f / "results.json").exists() for f in folders):
            print(row(algorithm, folders, asked.out / algorithm / "untrained"))


if __name__ == "__main__":
    main()
