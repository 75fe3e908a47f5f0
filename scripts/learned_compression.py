"""Does compression that is learned help? A small study from nothing, on students that it trains.

Trains small students (several widths, depths, algorithms and datasets), builds the table of
evaluated strategies, and for each run trains a proposer without that run and those of its fold.
On the run's compression tasks it then compares, within equal budgets and on meta-test tasks, the
uniform strategy, a rule without learning, the search and the proposer. What is there already is
not done again, so it can be stopped and started at will.

    METAKD_DATA=FOLDER python scripts/learned_compression.py --output outputs/learned_compression
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import metakd
from metakd.compression.choosing import Choice, propose, search
from metakd.compression.description import NetworkDescription
from metakd.compression.proposer import Proposer
from metakd.compression.proposer_training import train_proposer
from metakd.compression.space import Space
from metakd.compression.strategy import Strategy
from metakd.pipeline.compression_table import GOALS, Goal, build_table, judge_of
from metakd.reports.statistics import paired_test

FOLDS = 4
SEARCHED = (10, 30, 100)
EVALUATED = 10
"""By the proposer, where it evaluates."""
TEST_POOL, TEST_TASKS = 1200, 500
STUDENTS = (
    ("glyphs", "protonet", "conv4", "width=32", 100),
    ("omniglot", "supervised", "conv4", "width=16", 250),
    ("glyphs", "protonet", "conv4", "width=8", 200),
    ("cifar_fs", "supervised", "resnet8", "width=8", 250),
    ("glyphs", "supervised", "resnet8", "width=8", 200),
    ("glyphs", "supervised", "conv4", "width=16", 250),
    ("omniglot", "protonet", "conv4", "width=24", 120),
    ("cifar_fs", "ridge", "conv4", "widths=[16,24,32,32]", 150),
    ("glyphs", "ridge", "conv4", "widths=[8,16,24,32]", 150),
    ("omniglot", "ridge", "cnn", "width=16", 150),
    ("cifar_fs", "protonet", "conv4", "width=32", 150),
    ("omniglot", "protonet", "conv4", "width=8", 150),
    ("glyphs", "protonet", "conv4", "widths=[24,24,16,16]", 150),
    ("cifar_fs", "supervised", "conv4", "width=16", 300),
    ("glyphs", "protonet", "cnn", "width=16", 200),
    ("glyphs", "protonet", "conv4", "width=16", 150),
)
"""Dataset, algorithm, architecture, widths, updates; others than glyphs need METAKD_DATA."""


def methods() -> tuple[str, ...]:
    """Return the names of what is compared."""
    searched = (f"search {n}" for n in SEARCHED)
    return ("uniform", "rule", "meta 0", f"meta {EVALUATED}", *searched)


def train(students: list[tuple[str, str, str, str, int]], folder: Path) -> list[Path]:
    """Train the students that are not there yet; return their runs."""
    runs = []
    for dataset, algorithm, network, width, updates in students:
        name = "_".join((dataset, algorithm, network, width))
        run = folder / "".join(c if c.isalnum() or c == "_" else "_" for c in name).strip("_")
        runs.append(run)
        if (run / "results.json").exists():
            continue
        words = [
            *(f"dataset={dataset}", f"algorithm={algorithm}", f"student={network}"),
            *(f"student.{width}", "distill=none", "pretrain=none", "warmstart=none"),
            *(f"meta_train.iterations={updates}", "meta_train.validate_every=100000"),
            *("evaluate.tasks=40", "evaluate.shots=[]", "evaluate.transductive=false"),
            *("tracker=none", "device=cpu", f"hydra.run.dir={run}"),
        ]
        metakd.train(*words, quiet=True)
        print(f"trained {run.name}", file=sys.stderr, flush=True)
    return runs


def rule(space: Space, network: NetworkDescription) -> Strategy:
    """Return the strategy of the smallest summed damage: sensitivities without any learning."""
    _, found = space.draw(1024, torch.Generator().manual_seed(0))
    features = network.features(found)
    damage, error = features[..., -7], features[..., -4]  # of a group's layers, of their weights
    return space.strategy(found, int((damage + error).sum(1).argmin()))


@dataclass
class Chosen:
    """What a method chose, and what it took."""

    choice: Choice
    seconds: float


def timed(choose: Callable[[], Choice]) -> Chosen:
    """Choose, and measure the time."""
    began = time.perf_counter()
    return Chosen(choose(), time.perf_counter() - began)


def searched(run: Path, goal: Goal, kept: Path) -> dict[str, Any]:
    """Return what a search of the most evaluations found, from its file if it is there."""
    if not kept.exists():
        judge = judge_of(run)
        space = Space(judge.costs(), goal.budget, prunes=True, bits=goal.bits)
        found = timed(lambda: search(space, judge.accuracy, max(SEARCHED)))
        content = {
            "values": found.choice.values,
            "strategies": [strategy.plain() for strategy in found.choice.strategies],
            "seconds": found.seconds,
        }
        kept.write_text(json.dumps(content), encoding="utf-8")
        print("searched", run.name, goal.name, file=sys.stderr, flush=True)
    content = json.loads(kept.read_text(encoding="utf-8"))
    return dict(content)


def compare(
    run: Path,
    goal: Goal,
    network: NetworkDescription,
    proposer: Proposer,
    found: dict[str, Any],
) -> dict[str, Any]:
    """Return one compression task's accuracies by method; `found`: of its search."""
    judge = judge_of(run)
    test = judge_of(run, "test", TEST_POOL, TEST_TASKS)
    space = Space(judge.costs(), goal.budget, prunes=True, bits=goal.bits)
    strategies = [Strategy.from_plain(plain) for plain in found["strategies"]]
    values = found["values"]
    search_choice = Choice.best_of(strategies, values)
    zero = timed(lambda: propose(space, network, proposer))
    ten = timed(lambda: propose(space, network, proposer, judge.accuracy, EVALUATED))
    chosen = {
        "uniform": space.strategy(space.uniform()),
        "rule": rule(space, network),
        "meta 0": zero.choice.strategy,
        f"meta {EVALUATED}": ten.choice.strategy,
        **{f"search {n}": search_choice.after(n) for n in SEARCHED},
    }
    validated = {name: judge.accuracy(strategy) for name, strategy in chosen.items()}
    return {
        "run": run.name,
        "goal": goal.name,
        "validate": validated,
        "test": {name: test.accuracy(strategy) for name, strategy in chosen.items()},
        "whole": test.accuracy(Strategy()),
        "needed": {
            name: next((i + 1 for i, v in enumerate(values) if v >= validated[name]), None)
            for name in ("meta 0", f"meta {EVALUATED}")
        },
        "seconds": {
            f"search {max(SEARCHED)}": found["seconds"],
            "meta 0": zero.seconds,
            f"meta {EVALUATED}": ten.seconds,
        },
        "strategies": {name: strategy.plain() for name, strategy in chosen.items()},
    }


def report(found: list[dict[str, Any]]) -> str:
    """Return the tables in Markdown."""
    first, last = f"search {SEARCHED[0]}", f"search {SEARCHED[-1]}"
    lines = [
        f"{len(found)} held-out compression tasks of {len({f['run'] for f in found})} students",
        "",
        f"| method | meta-test accuracy | less uniform | less {first} | less {last} |",
        "| --- | --- | --- | --- | --- |",
    ]

    def difference(name: str, other: str) -> str:
        if name == other:
            return ""
        mean, half, p = paired_test([100 * (f["test"][name] - f["test"][other]) for f in found])
        return f"{mean:+.2f} ± {half:.2f} (p {p:.3f})"

    for name in methods():
        mean = 100 * sum(f["test"][name] for f in found) / len(found)
        others = [difference(name, other) for other in ("uniform", first, last)]
        lines.append(f"| {name} | {mean:.2f} | {' | '.join(others)} |")
    whole = 100 * sum(f["whole"] for f in found) / len(found)
    lines += ["", f"The whole students: {whole:.2f}.", ""]
    for name in ("meta 0", f"meta {EVALUATED}"):
        needed = sorted(f["needed"][name] or max(SEARCHED) + 1 for f in found)
        never = sum(f["needed"][name] is None for f in found)
        lines.append(
            f"Evaluations until the search is as good on meta-validation as {name}: median "
            f"{needed[len(needed) // 2]}, quartiles {needed[len(needed) // 4]} and "
            f"{needed[3 * len(needed) // 4]}; in {never} of {len(found)} tasks not within "
            f"{max(SEARCHED)}."
        )
    lines += ["", "| student | budget | whole | " + " | ".join(methods()) + " |"]
    lines.append("| --- " * (3 + len(methods())) + "|")
    for f in found:
        cells = [f"{100 * f['test'][name]:.1f}" for name in methods()]
        lines.append(f"| {f['run']} | {f['goal']} | {100 * f['whole']:.1f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(given: Sequence[str] | None = None) -> int:
    """Do what has not been done and print the tables; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("outputs/learned_compression"))
    parser.add_argument("--students", type=int, default=len(STUDENTS), help="the first so many")
    parser.add_argument("--rounds", type=int, default=1, help="budgets of each student compared")
    parser.add_argument("--strategies", type=int, default=24, help="of each student and budget")
    parser.add_argument("--jobs", type=int, default=1)
    asked = parser.parse_args(given)
    for name in ("runs", "searches", "tasks"):
        (asked.output / name).mkdir(parents=True, exist_ok=True)
    data = "METAKD_DATA" in os.environ
    students = [s for s in STUDENTS[: asked.students] if data or s[0] == "glyphs"]
    runs = train(students, asked.output / "runs")
    file = asked.output / "table.jsonl"
    table = build_table(runs, file, strategies=asked.strategies, jobs=asked.jobs)
    keys = {line["path"]: key for key, line in table.networks.items()}
    places = [i % len(runs) for i in range(asked.rounds * len(runs))]
    work = [
        (place, runs[place], GOALS[(place + i // len(runs)) % len(GOALS)])
        for i, place in enumerate(places)
    ]
    work = [one for one in work if (keys[str(one[1])], one[2].name) not in table.refused]

    def kept(folder: str, run: Path, goal: Goal) -> Path:
        return asked.output / folder / f"{run.name}_{goal.name}.json"

    searches = [searched(run, goal, kept("searches", run, goal)) for _, run, goal in work]
    proposers: dict[int, Proposer] = {}
    found = []
    for (place, run, goal), best in zip(work, searches, strict=True):
        file = kept("tasks", run, goal)
        if not file.exists():
            fold = place % FOLDS
            if fold not in proposers:
                others = [keys[str(r)] for j, r in enumerate(runs) if j % FOLDS == fold]
                proposers[fold] = train_proposer(table.tasks(without=others))
            plain = table.networks[keys[str(run)]]["network"]
            network = NetworkDescription.from_plain(plain)
            compared = compare(run, goal, network, proposers[fold], best)
            file.write_text(json.dumps(compared, indent=1), encoding="utf-8")
            print(run.name, goal.name, compared["test"], file=sys.stderr, flush=True)
        found.append(json.loads(file.read_text(encoding="utf-8")))
    text = report(found)
    (asked.output / "report.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
