"""Every algorithm exported for every runtime: differences, accuracy, bytes and time.

    python scripts/export_table.py --formats onnx torch
    python scripts/export_table.py --algorithms maml protonet --formats onnx

For each algorithm a small student (Conv-4) is trained on glyphs, briefly (how well it learns does
not matter here), with as many steps of adaptation at evaluation as the algorithm's file says, and
exported as `metakd export` does. Prints a markdown table for each format. What lies in the output
folder already, a run, a bundle or the reason why there is none, is not made again. Times are
medians on one thread, beside how many times as fast that is as PyTorch in eager mode; the seconds
of an export are processor time.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from algorithms_table import supports

import metakd
from metakd.config.locate import Choices
from metakd.errors import RunError, UserError
from metakd.exporting.runtimes.runtime import FORMATS, runtime_of
from metakd.pipeline.export import export_run

COMMON = (
    "student.width=8",
    "pretrain.epochs=1",
    "teacher.width=8",
    "tracker=none",
    "meta_train.iterations=40",
    "meta_train.validate_every=40",
    "meta_train.validate_tasks=20",
    "evaluate.tasks=50",
    "evaluate.shots=[]",
    "evaluate.steps=[]",
    "evaluate.transductive=false",
)
HEADER = (
    "| algorithm | steps | largest difference (PyTorch) | tasks that stray (PyTorch) | "
    "accuracy (PyTorch) | bytes | an image, ms | a task and a query, ms | to export, s |"
)


def settings(algorithm: str) -> list[str]:
    """Return what is typed for a run."""
    facts = supports(algorithm)
    words = [f"algorithm={algorithm}", *COMMON]
    if not facts.get("teaches"):  # where a teacher is part of the algorithm, it stays
        words += ["distill=none", "pretrain=none"]
    warm = "default" if facts.get("trained_start") else "none"
    words.append(f"warmstart={warm}")
    return [*words, "warmstart.epochs=1"] if warm == "default" else words


def trained(algorithm: str, output: Path, extra: Sequence[str]) -> Path:
    """Return an algorithm's run, trained if it is not there."""
    folder = output / algorithm
    if not (folder / "results.json").is_file():
        if (folder / "run.json").is_file():
            metakd.resume(folder)
        else:
            metakd.train(*settings(algorithm), *extra, f"hydra.run.dir={folder}")
    return folder


def exported(run: Path, runtime: str) -> dict[str, Any]:
    """Return what bundle.json `said`, or the `reason` why there is none; `seconds` it took."""
    folder, note = (run / "exports" / f"student_{runtime}{end}" for end in ("", ".json"))
    if not note.is_file() and not folder.is_dir():
        before, reason = processor_seconds(), ""
        try:
            export_run(run, runtime=runtime, quiet=True)
        except (RunError, UserError) as error:
            reason = str(error)
        note.parent.mkdir(exist_ok=True)
        taken = {"seconds": processor_seconds() - before, "reason": reason}
        note.write_text(json.dumps(taken, indent=2) + "\n")
    known: dict[str, Any] = json.loads(note.read_text()) if note.is_file() else {}
    if folder.is_dir():
        known["said"] = json.loads((folder / "bundle.json").read_text())
    return known


def processor_seconds() -> float:
    """Return the seconds that this process has computed."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def row(algorithm: str, known: Mapping[str, Any]) -> str:
    """Return an algorithm's line of the table."""
    if "said" not in known:
        return f"| {algorithm} | | not exported: {known['reason']} | | | | | | |"
    said = known["said"]
    off, right, time = (said["parity"][name] for name in ("difference", "accuracy", "latency"))
    sizes = said["parity"]["bytes"]
    parts = [f"{sizes['model']:,}"]
    if "head" in sizes:
        parts.append(f"{sizes['embedding']:,} + {sizes['head']:,}")
    cells = [
        algorithm,
        "" if said["steps"] is None else str(said["steps"]),
        f"{off['largest']:.1e} ({off['pytorch']:.1e})",
        "" if (one := off.get("strayed")) is None else f"{one['runtime']} ({one['pytorch']})",
        f"{100 * right['runtime']:.1f} ({100 * right['pytorch']:.1f})",
        "; ".join(parts),
        _times(time, "image"),
        _times(time, "task"),
        f"{known['seconds']:.0f}" if "seconds" in known else "",
    ]
    return f"| {' | '.join(cells)} |"


def _times(time: Mapping[str, float], what: str) -> str:
    if f"{what}_ms" not in time:
        return ""
    own, eager = time[f"{what}_ms"], time[f"pytorch_{what}_ms"]
    return f"{own:.2f} ({eager / own:.1f} times as fast)"


def main(given: Sequence[str] | None = None) -> int:
    """Make what is not there and print the tables; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    every = sorted(Choices().of("algorithm"))
    parser.add_argument("--output", type=Path, default=Path("outputs/export_table"))
    parser.add_argument("--algorithms", nargs="+", default=every, choices=every)
    parser.add_argument("--formats", nargs="+", default=[*FORMATS], choices=[*FORMATS])
    parser.add_argument("words", nargs="*", help="further settings of the runs, after --")
    asked = parser.parse_args(given)
    try:
        for runtime in asked.formats:
            runtime_of(runtime).check()
        for runtime in asked.formats:
            print(f"\n{runtime}\n\n{HEADER}\n{'|---' * 9}|")
            for algorithm in asked.algorithms:
                run = trained(algorithm, asked.output, asked.words)
                print(row(algorithm, exported(run, runtime)), flush=True)
    except UserError as error:
        print(f"export_table: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
