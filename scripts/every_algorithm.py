"""`metakd train algorithm=X` for every algorithm, everything else at its default: a table.

A run that is there already is not run again; all share the cached teacher, so the first one's
seconds hold its training.

    python scripts/every_algorithm.py --output outputs/every_algorithm
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import metakd
from metakd.config.locate import Choices

SECONDS = "seconds.txt"


def command(algorithm: str, folder: Path) -> list[str]:
    """Return the command line of a run."""
    words = [f"algorithm={algorithm}", "tracker=none", f"hydra.run.dir={folder}"]
    return [sys.executable, "-m", "metakd", "train", *words]


def run(algorithm: str, folder: Path) -> None:
    """Run it, unless it has been; keep its seconds."""
    if (folder / SECONDS).exists():
        return
    began = time.perf_counter()
    with folder.with_suffix(".log").open("w", encoding="utf-8") as log:
        subprocess.run(command(algorithm, folder), stdout=log, stderr=log, check=True)
    (folder / SECONDS).write_text(f"{time.perf_counter() - began:.1f}\n", encoding="utf-8")


def row(algorithm: str, folder: Path) -> str:
    """Return a line of the table."""
    results: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    brought = metakd.compose(f"algorithm={algorithm}").brought.values()
    cells = [algorithm, ", ".join(word for words in brought for word in words)]
    cells.append((folder / SECONDS).read_text(encoding="utf-8").strip())
    for model in ("student", "student_alone", "teacher"):
        measured = results.get(model, {}).get("fewshot_all", [])
        head = [m for m in measured if m["tasks"] == results["student"]["fewshot"]["tasks"]]
        by_shots = {m["shots"]: m for m in reversed(head) if m.get("batchnorm") != "transductive"}
        cells.append(" / ".join(f"{100 * by_shots[s]['accuracy']:.1f}" for s in sorted(by_shots)))
    return f"| {' | '.join(cells)} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("outputs/every_algorithm"))
    parser.add_argument("--only", nargs="*", default=None, help="some of them")
    asked = parser.parse_args()
    asked.output.mkdir(parents=True, exist_ok=True)
    names = asked.only or sorted(Choices().of("algorithm"))
    for name in names:
        run(name, asked.output / name)
        print(f"{name}: done", file=sys.stderr)
    print("| algorithm | brings | seconds | student | alone | teacher |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in names:
        print(row(name, asked.output / name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
