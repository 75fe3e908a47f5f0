"""Run one configuration with several seeds and print what the seeds say together.

    python scripts/over_seeds.py --seeds 1 2 3 -- experiment=glyphs/default

For every setting measured: each model's accuracy (mean over seeds ± half-width of its 95 % t
interval), and the student's gain over its undistilled twin on the same tasks, by seed (each with
the interval over tasks) and over seeds. A gain is claimed only if the latter excludes 0.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import metakd
from metakd.errors import UserError
from metakd.reports.statistics import claims_gain, over_seeds

MODELS = ("student", "student_alone", "teacher")
FIGURES = ("accuracy", "mse", "ci95", "difference", "model", "baseline", "measure")


def setting(entry: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Return what an entry of `fewshot_all` or `gains` was measured with, without the figures."""
    return tuple((k, v) for k, v in entry.items() if k not in FIGURES)


def title(key: tuple[tuple[str, Any], ...]) -> str:
    """Return e.g. ``5-way 1-shot inductive``."""
    s = dict(key)
    words = [f"{s['ways']}-way"] if "ways" in s else []
    words.append(f"{s['shots']}-shot")
    if "steps" in s:
        words.append(f"{s['steps']} steps")
    if "batchnorm" in s:
        words.append(s["batchnorm"])
    return " ".join(words)


def percent(mean: float, half: float | None) -> str:
    """Return e.g. ``61.8 ± 0.4``."""
    return f"{100 * mean:.1f}" + ("" if half is None else f" ± {100 * half:.1f}")


def spread(values: Sequence[float]) -> str:
    """Return mean and t interval over seeds, as a percentage."""
    if len(values) < 2:
        return percent(values[0], None)
    return percent(*over_seeds(values))


def _own(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the student's gains over its twin."""
    return [e for e in results.get("gains", []) if e["model"] == "student"]


def table(runs: Sequence[dict[str, Any]]) -> str:
    """Return a markdown table of several runs' results.json contents (classification)."""
    present = [m for m in MODELS if all(m in r for r in runs)]
    lines = ["| setting | " + " | ".join(present) + " | gain by seed | gain over seeds |"]
    lines.append("|---" * (len(present) + 3) + "|")
    for key in dict.fromkeys(setting(e) for e in runs[0]["student"]["fewshot_all"]):
        cells = []
        for model in present:
            values = [
                e["accuracy"] for r in runs for e in r[model]["fewshot_all"] if setting(e) == key
            ]
            cells.append(spread(values) if len(values) == len(runs) else "")
        gains = [e for r in runs for e in _own(r) if setting(e) == key]
        by_seed = "; ".join(f"{100 * g['difference']:+.1f} ± {100 * g['ci95']:.1f}" for g in gains)
        overall = ""
        if len(gains) > 1:
            mean, half = over_seeds([g["difference"] for g in gains])
            verdict = "a gain" if claims_gain(mean, half) else "no gain claimed"
            overall = f"{100 * mean:+.1f} ± {100 * half:.1f}: {verdict}"
        lines.append(f"| {title(key)} | " + " | ".join([*cells, by_seed, overall]) + " |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the seeds one after the other and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--quiet", action="store_true", help="no progress")
    parser.add_argument("overrides", nargs="*", help="as after `metakd train` (put -- before)")
    asked = parser.parse_args(argv)
    runs = []
    for seed in asked.seeds:
        try:
            run = metakd.train(*asked.overrides, f"seed={seed}", quiet=asked.quiet)
        except UserError as error:
            print(f"over_seeds: {error}", file=sys.stderr)
            return 2
        print(f"seed {seed}: {run['folder']}", file=sys.stderr, flush=True)
        runs.append(run)
    print(table(runs))
    timing = {k: [r["timing"][k] for r in runs if k in r["timing"]] for k in runs[0]["timing"]}
    for stage, seconds in timing.items():
        print(f"{stage}: " + ", ".join(f"{s:.0f}" for s in seconds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
