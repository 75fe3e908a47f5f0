"""Seconds per meta-iteration of every algorithm, against plain loops and other libraries.

    make bench                                       # on one core, then on all
    python scripts/bench.py --cores 1 --algorithms maml fomaml --rounds 7
    python scripts/bench.py --against FILE           # what changed since FILE was written
    python scripts/bench.py --quick                  # a tiny network, seconds; shows that it runs

The task: Conv-4-64 on 28x28 images, 5-way 1-shot with 15 queries, 16 tasks, 5 inner steps (all of
it can be set). One measured unit makes the outer gradient of one meta-batch, without the outer
optimiser's update. Contenders are measured in interleaved rounds, so that a disturbance of the
machine meets them all, and medians are compared. Each algorithm's baseline is a plain loop over
tasks with PyTorch's own layers (bench_baselines.py); learn2learn and higher take part if they can
be imported. Before anything is timed all outer gradients are compared, and where one differs the
run ends. Figures are stored in outputs/bench, or where `--json` says.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import torch
from bench_baselines import Contender
from bench_contenders import ALGORITHMS, Work, contenders
from bench_report import Figures, changes, other_work, tables

from metakd.adaptation.host_memory import keep_freed_memory
from metakd.runs.provenance import collect

Found = TypeVar("Found")

SMALL = {"width": 4, "size": 16, "tasks": 2, "queries": 2, "steps": 2, "batch": 8}


def measure(found: dict[str, Contender], rounds: int) -> dict[str, dict[str, float]]:
    """Return each contender's median `seconds` and `processor` seconds of interleaved rounds."""
    for contender in found.values():
        contender.run()
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in found}
    for _ in range(rounds):
        for name, contender in found.items():
            began = time.perf_counter(), time.process_time()
            contender.run()
            taken[name].append((time.perf_counter() - began[0], time.process_time() - began[1]))
    return {
        name: {
            "seconds": statistics.median(wall for wall, _ in values),
            "processor": statistics.median(processor for _, processor in values),
        }
        for name, values in taken.items()
    }


def keep_to(cores: int) -> None:
    """Let this process use no more than so many from now on."""
    if hasattr(os, "sched_setaffinity"):  # Linux
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    torch.set_num_threads(cores)


def measured_here(work: Work, algorithms: Sequence[str], rounds: int) -> Figures:
    """Return the figures of this process."""
    keep_freed_memory()  # as the program does; the baselines gain by it, too
    load, by_algorithm = [os.getloadavg()[0]], {}
    for algorithm in algorithms:
        found, cosines = contenders(algorithm, work)
        by_algorithm[algorithm] = measure(found, rounds)
        for name, cosine in cosines.items():
            by_algorithm[algorithm][name]["cosine"] = cosine
    return {"load": [*load, os.getloadavg()[0]], "algorithms": by_algorithm}


def apart(cores: int, measure: Callable[..., Found], *given: Any) -> Found:
    """Return what a function finds in a new process that is kept to some cores.

    PyTorch's and our pools of threads are of one size for good, and a peak of memory never falls.
    """
    spawning = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawning, initializer=keep_to, initargs=(cores,)) as process:
        return process.submit(measure, *given).result()


def processor() -> str:
    """Return the processor's model and PyTorch's widest instructions on it."""
    return f"{collect([])['processor']}, {torch.backends.cpu.get_cpu_capability()}"


def all_cores() -> int:
    """Return how many this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cores", type=int, help="measure on so many (default: one, then all)")
    parser.add_argument("--algorithms", nargs="+", choices=ALGORITHMS, default=list(ALGORITHMS))
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds (default: 5)")
    parser.add_argument("--quick", action="store_true", help="a tiny network, one round")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where figures are stored")
    parser.add_argument(
        "--against",
        type=lambda word: Path(word) if word else None,
        metavar="FILE",
        help="figures of an earlier run",
    )
    for name, value in vars(Work()).items():
        parser.add_argument(f"--{name}", type=int, help=f"default: {value}")
    given = parser.parse_args(argv)
    earlier = None
    if given.against:
        try:  # before minutes of measuring
            earlier = json.loads(given.against.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            sys.exit(f"bench: --against {given.against}: {error}")
    chosen = {n: v for n in vars(Work()) if (v := getattr(given, n)) is not None}
    work = Work(**{**(SMALL if given.quick else {}), **chosen})
    if earlier is not None and (differ := other_work(earlier, vars(work))):
        sys.exit(f"bench: --against {given.against}: its figures are of other work ({differ})")
    print(f"{work}, torch {torch.__version__}, {processor()}", flush=True)
    by_cores = {}
    rounds = 1 if given.quick else given.rounds
    for cores in [given.cores] if given.cores else sorted({1, all_cores()}):
        try:
            by_cores[str(cores)] = apart(cores, measured_here, work, given.algorithms, rounds)
        except RuntimeError as error:
            sys.exit(f"bench: {error}")
        print(tables(cores, by_cores[str(cores)]), flush=True)
    found = {
        "work": vars(work),
        "torch": torch.__version__,
        "processor": processor(),
        "cores": by_cores,
    }
    file = given.json or Path("outputs/bench") / time.strftime("%Y-%m-%d_%H-%M-%S.json")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"stored in {file}")
    if earlier is not None:
        print(changes(earlier, found))
    return found


if __name__ == "__main__":
    main()
