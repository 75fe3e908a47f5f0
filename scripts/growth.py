"""How the cost of an iteration and its memory grow with the size of the work: a table and a figure.

    python scripts/growth.py --output outputs/growth
    python scripts/growth.py --axes ways classes --cores 2

One size after another is enlarged, the others stay (Conv-4-64, 28x28, 5-way 1-shot, 15 queries, 4
tasks, 5 inner steps). Work is the size itself; for width and picture size, the network's
multiply-adds. Tasks are drawn 16 at a time, from classes of pictures of one pixel.
`growth` is the slope of log seconds over log work: 1 is in proportion, below 1 there are fixed
costs, above 1.1 something grows faster than the work. Processor seconds are medians of three;
memory is the process's peak less what it held before. Each line is measured in a process of its
own, from small to large.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from bench import apart
from bench_contenders import KINDS, Work, learner_of, ours

from metakd.adaptation.host_memory import keep_freed_memory
from metakd.data.class_examples import ClassExamples
from metakd.data.episodes import EpisodeDraw
from metakd.models.cost import multiply_adds
from metakd.reports.drawing import canvas, drawing, save, tidy
from metakd.task_spec import TaskSpec

BASE = Work(tasks=4)
ADAPTS = ("maml", "fomaml")
TRAINED = (*ADAPTS, "protonet")
DRAWS = ("draw",)
AXES: dict[str, tuple[tuple[str, ...], tuple[int, ...]]] = {
    "ways": (TRAINED, (5, 10, 20, 40)),
    "shots": (TRAINED, (1, 2, 4, 8)),
    "tasks": (TRAINED, (4, 8, 16, 32)),
    "steps": (ADAPTS, (1, 2, 4, 8)),
    "width": (TRAINED, (16, 32, 64, 128)),
    "size": (TRAINED, (16, 28, 56, 84)),
    "classes": (DRAWS, (64, 512, 4096, 32768)),
    "pictures of a class": (DRAWS, (20, 200, 2000, 20000)),
}
"""By what grows: who is measured, and how large it becomes."""
FASTER = 1.1

Point = dict[str, float]
"""`size`, `work`, `seconds`, `mebibytes`."""


def unit(who: str, axis: str, size: int) -> tuple[Callable[[], object], float]:
    """Return an iteration of this size and its work."""
    if who == "draw":
        draw = draws(*((size, 20) if axis == "classes" else (64, size)))
        return draw, float(size)
    work = replace(BASE, **{axis: size})
    run = ours(learner_of(KINDS[who], work), work.meta_batch()).run
    if axis in ("width", "size"):
        return run, float(multiply_adds(work.backbone(), (1, work.size, work.size)))
    return run, float(size)


def draws(classes: int, each: int) -> Callable[[], object]:
    """Return a draw of 16 tasks from so many classes of so many pictures (of one pixel)."""
    labels = torch.arange(classes).repeat_interleave(each)
    examples = ClassExamples(
        torch.zeros(len(labels), 1, 1, 1, dtype=torch.uint8),
        labels,
        tuple(map(str, range(classes))),
        torch.zeros(classes, dtype=torch.long),
        torch.zeros(len(labels), dtype=torch.bool),
    )
    drawn = EpisodeDraw(examples, TaskSpec(5, 1, 15), tasks=16, key=0)
    return lambda: drawn.draw(0)


def peak_mebibytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        2**20 if sys.platform == "darwin" else 2**10
    )


def settle(run: Callable[[], object]) -> None:
    """Run until that takes no more memory: zeroing fresh pages is no part of an iteration."""
    reached = -math.inf
    while (peak := peak_mebibytes()) > reached + 1:
        reached = peak
        run()


def points(who: str, axis: str, sizes: Sequence[int], rounds: int = 3) -> list[Point]:
    """Return what this process measures, from small to large."""
    keep_freed_memory()
    before = peak_mebibytes()
    found = []
    for size in sorted(sizes):
        run, work = unit(who, axis, size)
        settle(run)
        taken = []
        for _ in range(rounds):
            began = time.process_time()
            run()
            taken.append(time.process_time() - began)
        found.append(
            {
                "size": size,
                "work": work,
                "seconds": statistics.median(taken),
                "mebibytes": peak_mebibytes() - before,
            }
        )
    return found


def slope(found: Sequence[Point], what: str = "seconds") -> float:
    """Return the least-squares slope of log `what` over log work."""
    x = [math.log(p["work"]) for p in found]
    y = [math.log(max(p[what], 1e-9)) for p in found]
    return statistics.linear_regression(x, y).slope


def table(found: dict[str, dict[str, list[Point]]]) -> str:
    """Return a markdown table of all lines."""
    lines = [
        "| grows | what | sizes | ms | growth | MiB |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for axis, by_who in found.items():
        for who, line in by_who.items():
            grown = slope(line)
            cells = (
                axis,
                who,
                ", ".join(f"{p['size']:g}" for p in line),
                ", ".join(f"{1e3 * p['seconds']:.3g}" for p in line),
                f"{grown:.2f}" + (" (faster than the work)" if grown > FASTER else ""),
                ", ".join(f"{p['mebibytes']:.0f}" for p in line),
            )
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


@drawing
def figure(found: dict[str, dict[str, list[Point]]], out: Path) -> Path:
    """Draw seconds (above) and memory (below) over each size; dashes are in proportion to work."""
    page = canvas(3.2 * len(found), 5.6)
    plots = page.subplots(2, len(found), squeeze=False)
    for column, (axis, by_who) in enumerate(found.items()):
        for row, (what, label) in enumerate((("seconds", "processor s"), ("mebibytes", "MiB"))):
            axes = plots[row][column]
            for who, line in by_who.items():
                sizes = [p["size"] for p in line]
                (drawn,) = axes.plot(sizes, [p[what] for p in line], "o-", ms=4, label=who)
                if what == "seconds":
                    each = line[0]["seconds"] / line[0]["work"]
                    proportional = [each * p["work"] for p in line]
                    axes.plot(sizes, proportional, "--", lw=1, color=drawn.get_color(), alpha=0.6)
            axes.set_xscale("log")
            axes.set_xticks(sizes, [f"{size:g}" for size in sizes])
            axes.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
            axes.set_yscale("log" if what == "seconds" else "linear")
            tidy(axes, xlabel=axis, ylabel=label if column == 0 else "")
            if row == 0:
                axes.legend(fontsize=8, frameon=False)
    return save(page, out)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, default=Path("outputs/growth"))
    parser.add_argument("--axes", nargs="+", choices=[*AXES], default=[*AXES])
    parser.add_argument("--cores", type=int, default=1, help="to measure on (default: 1)")
    given = parser.parse_args(argv)
    found: dict[str, dict[str, Any]] = {}
    for axis in given.axes:
        whose, sizes = AXES[axis]
        for who in whose:
            print(f"{axis}: {who}", file=sys.stderr, flush=True)
            found.setdefault(axis, {})[who] = apart(given.cores, points, who, axis, sizes)
    given.output.mkdir(parents=True, exist_ok=True)
    (given.output / "growth.json").write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))
    print(f"\n{figure(found, given.output / 'growth.png')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
