"""A student made smaller in many ways: accuracy against multiply-adds, bytes and time.

    python scripts/compression_table.py
    python scripts/compression_table.py --seeds 1 --budgets 0.5 0.25 -- dataset=glyphs

For each seed one run is trained (default: `experiment=cifar_fs/distilled_conv4`), then its student
is made smaller by `metakd compress`: pruned to several shares of its multiply-adds, with recovery
taught by the student as it was (`distilled`), on labels alone (`labels`) and without any (`none`);
made integers, after training and by quantisation-aware training; and both. What is there already is
not made again. Prints a markdown table for each number of shots (means over seeds, paired
differences to the student by seed and over seeds), and draws OUTPUT/pareto.png. Bytes are those of
the saved weights; milliseconds are ONNX Runtime's for one example on one thread, of the first seed
(needs `pip install 'metakd[compress,onnx]' onnxscript`; without it there is no such column).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from over_seeds import percent, spread

import metakd
from metakd import pipeline
from metakd.compression.deployed import call_ms, onnx_bytes
from metakd.errors import UserError
from metakd.reports.drawing import canvas, save, tidy
from metakd.runs.folder import open_run

DEFAULT = ("experiment=cifar_fs/distilled_conv4",)
BUDGETS = (0.75, 0.5, 0.25, 0.125)
RECOVERY = {
    "distilled": ("compress.teacher=auto",),
    "labels": ("compress.teacher=none",),
    "none": ("compress.iterations=0",),
}
FAMILIES = {
    "prune, distilled": ("#0b6bb3", "o-"),
    "prune, labels": ("#e08a00", "s-"),
    "prune, none": ("#999999", "x-"),
    "both, distilled": ("#7a3fa0", "o--"),
    "both, labels": ("#c05080", "s--"),
    "int8": ("#2a8f4f", "D"),
    "int8, trained": ("#145a2f", "P"),
    "student": ("#000000", "*"),
}


def variants(budgets: Sequence[float], iterations: int) -> dict[str, tuple[str, ...]]:
    """Return by name the words of `metakd compress`; a name is `family @ budget`."""
    long = f"compress.iterations={iterations}"
    found: dict[str, tuple[str, ...]] = {
        "int8": ("compress=quantize",),
        "int8, trained": ("compress=quantize", "compress.qat=true", long),
    }
    for budget in budgets:
        macs = f"compress.macs={budget}"
        for name, words in RECOVERY.items():
            found[f"prune, {name} @ {budget:g}"] = ("compress=prune", macs, long, *words)
        for name in ("distilled", "labels"):
            words = ("compress=prune_quantize", macs, long, *RECOVERY[name])
            found[f"both, {name} @ {budget:g}"] = words
    return found


def trained(folder: Path, words: Sequence[str], seed: int) -> Path:
    """Return the folder of a finished run, trained if it is not there."""
    if not (folder / "results.json").is_file():
        metakd.train(*words, "tracker=none", f"seed={seed}", f"hydra.run.dir={folder}", quiet=False)
    return folder


def compressed(run: Path, name: str, words: Sequence[str]) -> Path:
    """Return the folder of a variant of a run's student, made if it is not there."""
    list_of = run / "variants.json"
    known: dict[str, Any] = json.loads(list_of.read_text()) if list_of.is_file() else {}
    entry = known.get(name)
    if entry is None or entry["words"] != [*words]:
        print(f"{run.name}: {name}", flush=True)
        found = pipeline.compress_run(run, list(words), quiet=True)
        known[name] = {"words": [*words], "folder": Path(found["folder"]).name}
        list_of.write_text(json.dumps(known, indent=2) + "\n")
    return run / "compressions" / known[name]["folder"]


def onnx_ms(folder: Path, which: str) -> float | None:
    """Return the milliseconds of one example in ONNX Runtime; None: it is not installed."""
    kept = folder / "onnx_ms.json"
    known: dict[str, float] = json.loads(kept.read_text()) if kept.is_file() else {}
    if which not in known:
        made = metakd.load(folder, which=which).trained
        shape = tuple(made.recipe.example_shape)
        try:
            known[which] = call_ms(onnx_bytes(made.algorithm.backbone, shape), shape)
        except UserError as error:
            print(f"compression_table: {error}", file=sys.stderr)
            return None
        kept.write_text(json.dumps(known))
    return known[which]


def accuracy(model: Mapping[str, Any], shots: int) -> float:
    """Return the inductive accuracy at so many shots."""
    return next(e["accuracy"] for e in _entries(model["fewshot_all"], shots))


def difference(results: Mapping[str, Any], shots: int) -> tuple[float, float]:
    """Return the compressed student minus the student, with its interval over tasks."""
    own = [g for g in results["gains"] if g["model"] == "compressed"]
    entry = next(_entries(own, shots))
    return entry["difference"], entry["ci95"]


def _entries(entries: Sequence[Mapping[str, Any]], shots: int) -> Any:
    return (e for e in entries if e["shots"] == shots and e.get("batchnorm") in (None, "inductive"))


def table(found: Mapping[str, Sequence[Mapping[str, Any]]], shots: int) -> str:
    """Return the markdown table of one number of shots."""
    lines = [
        "| | accuracy | minus the student, by seed | over seeds | multiply-adds | bytes | ms |",
        "|---" * 7 + "|",
    ]
    for name, seeds in found.items():
        which = "student" if name == "student" else "compressed"
        values = [accuracy(r[which], shots) for r in seeds]
        cells = [name, spread(values)]
        if which == "student":
            cells += ["", ""]
        else:
            pairs = [difference(r, shots) for r in seeds]
            cells.append(", ".join(percent(*p) for p in pairs))
            cells.append(spread([d for d, _ in pairs]))
        cost = seeds[0][which]["cost"]
        ms = seeds[0].get("onnx_ms")
        cells += [f"{cost['macs'] / 1e6:.3g} M", f"{cost['bytes'] / 1e3:.4g} k"]
        cells.append("" if ms is None else f"{ms:.3f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(found: Mapping[str, Sequence[Mapping[str, Any]]], shots: int, out: Path) -> None:
    """Draw accuracy against multiply-adds, bytes and milliseconds."""
    axes_of = {
        "million multiply-adds of an example": lambda r, w: r[w]["cost"]["macs"] / 1e6,
        "kB of weights": lambda r, w: r[w]["cost"]["bytes"] / 1e3,
        "ms of an example, ONNX Runtime": lambda r, w: r.get("onnx_ms"),
    }
    figure = canvas(13.5, 4.2)
    for number, (title, cost) in enumerate(axes_of.items(), 1):
        axes = figure.add_subplot(1, 3, number)
        points: dict[str, list[tuple[float, float]]] = {}
        for name, seeds in found.items():
            which = "student" if name == "student" else "compressed"
            x = cost(seeds[0], which)
            y = sum(accuracy(r[which], shots) for r in seeds) / len(seeds)
            if x is not None:
                points.setdefault(name.partition(" @ ")[0], []).append((x, 100 * y))
        for family, (colour, marks) in FAMILIES.items():
            if family in points:
                line = sorted(points[family])
                axes.plot(*zip(*line, strict=True), marks, color=colour, label=family, markersize=6)
        axes.set_xlabel(title)
        axes.set_ylabel(f"{shots}-shot accuracy (%)" if number == 1 else "")
        tidy(axes)
        if number == 1:
            axes.legend(fontsize=8, frameon=False)
    save(figure, out)


def main(given: Sequence[str] | None = None) -> int:
    """Make what is not there and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, default=Path("outputs/compression"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--budgets", type=float, nargs="+", default=[*BUDGETS])
    parser.add_argument("--iterations", type=int, default=2000, help="updates of the recovery")
    parser.add_argument("--compress", nargs="*", default=[], help="further words of each variant")
    parser.add_argument("words", nargs="*", help="of the runs; after --")
    asked = parser.parse_args(given)
    words = asked.words or DEFAULT
    found: dict[str, list[dict[str, Any]]] = {}
    try:
        for seed in asked.seeds:
            run = trained(asked.output / f"seed_{seed}", words, seed)
            whole = open_run(run).read_results().content
            made = {"student": (run, whole)}
            for name, how in variants(asked.budgets, asked.iterations).items():
                folder = compressed(run, name, [*how, *asked.compress])
                made[name] = (folder, open_run(folder).read_results().content)
            for name, (folder, content) in made.items():
                which = "student" if name == "student" else "compressed"
                ms = onnx_ms(folder, which) if seed == asked.seeds[0] else None
                found.setdefault(name, []).append({**content, "onnx_ms": ms})
    except UserError as error:
        print(f"compression_table: {error}", file=sys.stderr)
        return 2
    first = found["student"][0]["student"]["fewshot_all"]
    for shots in sorted({e["shots"] for e in first}):
        print(f"\n{shots}-shot\n\n{table(found, shots)}")
    draw(found, max(e["shots"] for e in first), asked.output / "pareto.png")
    print(f"\n{asked.output / 'pareto.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
