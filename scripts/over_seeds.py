"""Run one configuration with several seeds and print what the seeds say together.

    python scripts/over_seeds.py --seeds 1 2 3 -- experiment=glyphs/default

For every setting measured: each model's accuracy, or error (mean over seeds ± half-width of its
95 % t interval; of a network that all seeds share, without one), and the student's gain over its
undistilled twin on the same tasks, by seed (each with the interval over tasks) and over seeds. A
gain is claimed only if the latter excludes 0.
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
SETTING = ("ways", "classes", "shots", "steps", "batchnorm", "state", "tasks", "images", "queries")
"""What tells settings apart, by its name in results.json; the rest are figures."""


def setting(entry: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Return what was measured, without the figures, of an entry of results.json."""
    return tuple((key, entry[key]) for key in SETTING if key in entry)


def title(key: tuple[tuple[str, Any], ...]) -> str:
    """Return e.g. ``5-way 1-shot inductive``."""
    s = dict(key)
    words = [f"{s['ways']}-way"] if "ways" in s else []
    words += [f"{s['classes']} classes"] if "classes" in s else []
    words += [f"{s['shots']}-shot"] if "shots" in s else []
    words += [f"{s['steps']} steps"] if "steps" in s else []
    return " ".join([*words, *(str(s[k]) for k in ("batchnorm", "state") if k in s)])


def step(key: tuple[tuple[str, Any], ...]) -> float:
    """Return the smallest difference of two accuracies: they are counts of right answers."""
    s = dict(key)
    return 1 / (s["images"] if "images" in s else s["tasks"] * s["ways"] * s["queries"])


def shown(mean: float, half: float | None, measure: str, sign: str = "") -> str:
    """Return e.g. ``61.8 ± 0.4`` (an accuracy in percent), or ``0.291 ± 0.012`` (an error)."""
    scale, digits = (100, 1) if measure == "accuracy" else (1, 3)
    text = f"{scale * mean:{sign}.{digits}f}"
    return text if half is None else f"{text} ± {scale * half:.{digits}f}"


def measured(results: dict[str, Any], model: str) -> list[dict[str, Any]]:
    """Return all measurements of a model, few-shot or of a whole dataset; none if it is absent."""
    found: list[dict[str, Any]] = results.get(model, {}).get("whole_all") or results.get(
        model, {}
    ).get("fewshot_all", [])
    return found


def figure(
    runs: Sequence[dict[str, Any]], model: str, key: tuple[tuple[str, Any], ...], measure: str
) -> str:
    """Return a model's mean and t interval over seeds; empty unless all seeds have the figure.

    A network that all seeds share, such as a teacher with its own seed, has no interval over them.
    """
    found = [e for r in runs for e in measured(r, model) if setting(e) == key and measure in e]
    if len(found) < len(runs):
        return ""
    values = [entry[measure] for entry in found]
    if all(r[model].get("calibration") == runs[0][model].get("calibration") for r in runs) and all(
        measured(r, model) == measured(runs[0], model) for r in runs
    ):
        return shown(values[0], None, measure)
    return shown(*over_seeds(values, step(key) if measure == "accuracy" else 0.0), measure)


def gain(found: Sequence[dict[str, Any]], key: tuple[tuple[str, Any], ...]) -> tuple[str, str]:
    """Return the gains of each seed, and what they say together."""
    if not found:
        return "", ""
    measure = found[0]["measure"]
    by_seed = "; ".join(
        shown(g["difference"], g["ci95"], measure, "+") if "difference" in g else "diverged"
        for g in found
    )
    differences = [g["difference"] for g in found if "difference" in g]
    if len(differences) < max(2, len(found)):
        return by_seed, ""
    mean, half = over_seeds(differences, step(key) if measure == "accuracy" else 0.0)
    better = mean if measure == "accuracy" else -mean  # a smaller error
    verdict = "a gain" if claims_gain(better, half) else "no gain claimed"
    return by_seed, f"{shown(mean, half, measure, '+')}: {verdict}"


def table(runs: Sequence[dict[str, Any]]) -> str:
    """Return a markdown table of several runs' results.json contents."""
    present = [m for m in MODELS if all(m in r for r in runs)]
    lines = ["| setting | " + " | ".join(present) + " | gain by seed | gain over seeds |"]
    lines.append("|---" * (len(present) + 3) + "|")
    entries = [e for r in runs for e in measured(r, "student")]
    measure = "accuracy" if any("accuracy" in e for e in entries) else "mse"
    for key in dict.fromkeys(setting(e) for e in entries):
        cells = [figure(runs, model, key, measure) for model in present]
        gains = [
            e
            for r in runs
            for e in r.get("gains", [])
            if e["model"] == "student" and setting(e) == key
        ]
        lines.append(f"| {title(key)} | " + " | ".join([*cells, *gain(gains, key)]) + " |")
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
    if len(set(asked.seeds)) < len(asked.seeds):
        parser.error("--seeds: one stands there twice, and would be the same run")
    for word in asked.overrides:
        if word.startswith("seed="):
            parser.error(f"{word}: type --seeds in place of it")
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
