"""A comparison for programs: JSON and CSV, with every digit."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from typing import Any

from metakd.comparing.columns import settings_of
from metakd.comparing.compare import Comparable, Comparison
from metakd.comparing.figures import COSTS, cost_of, diverged_of, figure_of
from metakd.comparing.gather import Run
from metakd.comparing.pairing import Pair, Row, RowPair
from metakd.runs.record import known
from metakd.runs.records import MODELS, Model
from metakd.runs.records_compare import (
    AblationRecord,
    ComparisonRecord,
    FigureRecord,
    GroupRecord,
    NotComparable,
    PairOfGroups,
    PairOfRuns,
    RunRecord,
)

__all__ = ["as_csv", "as_json", "pair_of_groups"]


def as_json(comparison: Comparison, ablation: AblationRecord | None = None) -> str:
    """Return the comparison as JSON, which is a `ComparisonRecord`."""
    baseline = comparison.baseline_run
    return ComparisonRecord(
        baseline=None if baseline is None else str(baseline.path),
        model=comparison.model,
        runs=[_run(run, comparison) for run in comparison.runs],
        pairs=[_pair(pair, comparison.model) for rows in comparison.pairs for pair in rows.pairs],
        not_comparable=[
            NotComparable(runs=_paths(apart.runs), reason=apart.reason)
            for apart in comparison.apart
        ],
        groups=[
            _group(i, row, comparable, comparison)
            for comparable in comparison.comparable
            for i, row in enumerate(comparable.rows)
        ],
        group_pairs=[pair_of_groups(pair, comparison.model) for pair in comparison.pairs],
        notes=list(comparison.notes),
        **known(ablation=ablation),
    ).text()


def _paths(runs: Iterable[Run]) -> list[str]:
    return [str(run.path) for run in runs]


def _run(run: Run, comparison: Comparison) -> RunRecord:
    return RunRecord(
        path=str(run.path),
        name=run.name,
        status=run.status,  # type: ignore[arg-type]  # checked there
        seed=run.seed,
        settings=settings_of(run, comparison.settings),
        results=None if run.results is None else run.results.content,
        **known(
            reason=run.reason,
            stage=run.info.stage,
            warnings=run.warnings or None,
            external_pretraining=run.info.external_pretraining or None,
        ),
    )


def _pair(pair: Pair, model: Model) -> PairOfRuns:
    return PairOfRuns(
        run=str(pair.run.path),
        baseline=str(pair.baseline.path),
        model=model,
        shots=pair.shots,
        measure=pair.measure,
        tasks=pair.tasks,
        difference=pair.difference,
        ci95=pair.half,
        p=pair.p,
        p_adjusted=pair.p_adjusted,
    )


def _group(i: int, row: Row, comparable: Comparable, comparison: Comparison) -> GroupRecord:
    figures = [_figure(row, model, k) for model in MODELS for k in comparable.shots]
    costs = {key: _cost(row, comparison.model, key) for key in COSTS}
    return GroupRecord(
        runs=_paths(row),
        seeds=[run.seed for run in row],
        settings=settings_of(row[0], comparison.settings),
        set=comparison.comparable.index(comparable),
        figures=[figure for figure in figures if figure is not None],
        cost={key: value for key, value in costs.items() if value is not None},
        front=[key for key, on in comparable.fronts.items() if on[i]],
    )


def _cost(row: Row, model: str, key: str) -> float | int | None:
    cost = cost_of(row, model, key)
    return int(cost) if cost is not None and cost.is_integer() else cost


def _figure(row: Row, model: Model, shots: int) -> FigureRecord | None:
    figure, diverged = figure_of(row, model, shots), diverged_of(row, model, shots) or None
    if figure is None and diverged is None:
        return None
    found: dict[str, Any] = {"seeds": len(row)}
    if figure is not None:
        found = known(ci95=figure.half, deviation=figure.deviation, seeds=figure.seeds)
        found[figure.measure] = figure.mean
    return FigureRecord(model=model, shots=shots, **found, **known(diverged=diverged))


def pair_of_groups(pair: RowPair, model: Model) -> PairOfGroups:
    """Return the difference of two rows as a record."""
    return PairOfGroups(
        runs=_paths(pair.row),
        baselines=_paths(pair.baseline),
        model=model,
        shots=pair.pairs[0].shots,
        measure=pair.pairs[0].measure,
        over="seeds" if pair.is_over_seeds else "tasks",
        seeds=[one.run.seed for one in pair.pairs],
        tasks=pair.pairs[0].tasks,
        difference=pair.difference,
        ci95=pair.half,
        ci95_adjusted=pair.corrected_half,
        p=pair.p,
        p_adjusted=pair.p_adjusted,
    )


def as_csv(comparison: Comparison) -> str:
    """Return a line for each row of the tables, and one for each run without figures.

    Accuracies are from 0 to 1. `set` numbers the sets of rows that are comparable with one
    another; figures of different sets cannot be compared.
    """
    lines = [
        _line(number, i, row, comparable, comparison)
        for number, comparable in enumerate(comparison.comparable)
        for i, row in enumerate(comparable.rows)
    ]
    lines += [_unfinished(run, comparison) for run in comparison.unfinished]
    first = ["set", "runs", "name", "status", "reason", "seeds", "n"]
    first += list(comparison.settings.values())
    columns = dict.fromkeys([*first, *(key for line in lines for key in line)])
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _line(
    number: int, i: int, row: Row, comparable: Comparable, comparison: Comparison
) -> dict[str, Any]:
    line: dict[str, Any] = {
        "set": number,
        "runs": ";".join(str(run.path) for run in row),
        "name": row[0].name,
        "status": row[0].status,
        "seeds": ";".join("" if run.seed is None else str(run.seed) for run in row),
        "n": len(row),
        **_settings(row[0], comparison),
    }
    for model in MODELS:
        for k in comparable.shots:
            figure = figure_of(row, model, k)
            if figure is not None:
                name = f"{model}_{figure.measure}_{k}shot"
                line |= {name: figure.mean, f"{name}_ci95": figure.half}
                line |= {f"{name}_sd": figure.deviation}
            diverged = diverged_of(row, model, k)
            if diverged:
                line[f"{model}_diverged_{k}shot"] = diverged
    for k in comparable.shots if comparison.baseline is not None else ():
        pair = comparison.pair(row, comparison.baseline, k)  # type: ignore[arg-type]
        if pair is not None:
            name = f"difference_{k}shot"
            line |= {name: pair.difference, f"{name}_ci95": pair.half}
            line |= {f"{name}_p_adjusted": pair.p_adjusted}
    if outside := [text for run in row for text in run.info.external_pretraining or ()]:
        line["external_pretraining"] = "; ".join(dict.fromkeys(outside))
    if warnings := [text for run in row for text in run.warnings]:
        line["warnings"] = "; ".join(warnings)
    for key in COSTS:
        line[key] = _cost(row, comparison.model, key)
        if key in comparable.fronts:
            line[f"on_front_{key}"] = str(comparable.fronts[key][i]).lower()
    return line


def _unfinished(run: Run, comparison: Comparison) -> dict[str, Any]:
    return {
        "runs": str(run.path),
        "name": run.name,
        "status": run.status,
        "reason": run.reason,
        "seeds": run.seed,
        "n": 1,
        **_settings(run, comparison),
    }


def _settings(run: Run, comparison: Comparison) -> Mapping[str, Any]:
    values = settings_of(run, comparison.settings)
    return {k: v if isinstance(v, str) else json.dumps(v) for k, v in values.items()}
