"""Details of a run, and its differences to others on the same tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from metakd.comparing.gather import Run
from metakd.comparing.pairing import pair_rows
from metakd.config.declared import is_fact
from metakd.dashboard.rows import MODEL, plain
from metakd.dashboard.watch import Watch

__all__ = ["details_of", "differences"]

LEFT_OUT = frozenset(
    {
        *("schema", "git_diff", "git_diff_sha256", "process_start", "pid", "start", "end"),
        *("status", "warnings"),
    }
)
"""Fields of run.json that are not shown, or are in the table already."""


def details_of(run: Run) -> dict[str, Any]:
    """Return a run's `settings` by dotted name, `info` (run.json) and `results`, all flat.

    Facts of choices, which are no settings, are left out.
    """
    results = run.results.content if run.results else {}
    info = {key: value for key, value in run.info.content.items() if key not in LEFT_OUT}
    return {
        "settings": {key: plain(value) for key, value in run.settings.items() if not is_fact(key)},
        "info": _flat(info),
        "results": _flat({k: v for k, v in results.items() if k != "schema"}),
    }


def differences(watch: Watch, baseline: Run, runs: Sequence[Run]) -> dict[str, Any]:
    """Return how runs differ from `baseline`, task by task, corrected for their number.

    Args:
        watch: that found them.
        baseline: a finished run.
        runs: others; those without results are passed over.

    Returns:
        `baseline`; `pairs`: run, shots, measure, tasks, difference, ci95, ci95_adjusted,
        p_adjusted; `apart`: run and reason of those that cannot be compared.
    """
    others = [run for run in runs if run is not baseline and run.results is not None]
    shots = list(baseline.headlines.get(MODEL, {}))[:1]  # the headline's
    pairs, apart = pair_rows([((run,), (baseline,)) for run in others], MODEL, shots)
    return {
        "baseline": watch.id_of(baseline),
        "pairs": [
            {
                "run": watch.id_of(pair.row[0]),
                "shots": pair.pairs[0].shots,
                "measure": pair.pairs[0].measure,
                "tasks": pair.pairs[0].tasks,
                "difference": pair.difference,
                "ci95": pair.half,
                "ci95_adjusted": pair.corrected_half,
                "p_adjusted": pair.p_adjusted,
            }
            for pair in pairs
        ],
        "apart": [{"run": watch.id_of(one.runs[0]), "reason": one.reason} for one in apart],
    }


def _flat(content: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested objects and lists by dotted name (`student.fewshot_all.1.accuracy`)."""
    found: dict[str, Any] = {}
    entries = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in entries:
        if isinstance(value, dict) or (
            isinstance(value, list) and any(isinstance(v, (dict, list)) for v in value)
        ):
            found |= _flat(value, f"{prefix}{key}.")
        elif value is not None:
            found[f"{prefix}{key}"] = plain(value)
    return found
