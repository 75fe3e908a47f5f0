"""A comparison from Python: a list with a dictionary for each run, shown as a table."""

from __future__ import annotations

import importlib
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metakd.comparing.columns import settings_of
from metakd.comparing.compare import Comparison, compare
from metakd.comparing.figures import COSTS
from metakd.comparing.gather import Run
from metakd.errors import UserError, nearest
from metakd.reports.summary import MODELS

__all__ = ["Records", "check_shots", "records"]

WIDTH = 100
"""Characters of a line of `repr`."""

NO_LIMIT = 100_000
"""A page scrolls; its tables are not split."""


class Records(list[dict[str, Any]]):
    """A dictionary for each run, in the order found; printed, the table of `metakd compare`.

    Each has `path`, `name`, `status`, `seed`, the settings in which the runs differ (`algorithm`,
    `meta_train.lr`), and of finished runs `set` (runs of one set were evaluated on the same tasks;
    only these can be compared), the headline figures (`student_accuracy_1shot` from 0 to 1,
    `student_accuracy_1shot_ci95`, `teacher_…`, `student_alone_…`) and the student's `parameters`,
    `macs`, `task_macs`, `latency_ms`, `task_latency_ms`. What is not known is absent.

    Attributes:
        comparison: all that is known of the runs together.

    Args:
        comparison: what the runs are read from.
    """

    def __init__(self, comparison: Comparison) -> None:
        number = {
            run: i
            for i, comparable in enumerate(comparison.comparable)
            for row in comparable.rows
            for run in row
        }
        super().__init__(_record(run, comparison, number) for run in comparison.runs)
        self.comparison = comparison

    @property
    def pairs(self) -> list[dict[str, Any]]:
        """Return the differences on the same tasks, row by row, as `--json` has in `group_pairs`.

        Of few rows, or to a baseline: `runs`, `baselines`, `shots`, `tasks`, `difference`,
        `ci95_adjusted`, `p_adjusted` and more.
        """
        from metakd.comparing.machine import pair_of_groups

        model = self.comparison.model
        return [pair_of_groups(pair, model).plain() for pair in self.comparison.pairs]

    def to_pandas(self) -> Any:
        """Return a `pandas.DataFrame` with a line for each run; what is not known is NaN.

        Raises:
            ImportError: pandas is not installed.
        """
        try:
            pandas = importlib.import_module("pandas")
        except ImportError as error:
            raise ImportError("to_pandas needs pandas: pip install pandas") from error
        return pandas.DataFrame([dict(record) for record in self])

    def __repr__(self) -> str:
        """Return the table as text, 100 characters wide."""
        from rich.console import Console

        from metakd.comparing.formats import print_report
        from metakd.comparing.screen import screen_report

        text = io.StringIO()
        console = Console(file=text, width=WIDTH)
        print_report(screen_report(self.comparison, WIDTH), console)
        return text.getvalue().rstrip("\n")

    def _repr_html_(self) -> str:
        """Return the same for a notebook."""
        from metakd.comparing.formats import html_blocks
        from metakd.comparing.screen import screen_report

        return html_blocks(screen_report(self.comparison, NO_LIMIT))


def records(
    paths: Sequence[Any],
    baseline: Any = None,
    model: str = "student",
    shots: int | Sequence[int] = (),
    grouped: bool = True,
) -> Records:
    """Return what `metakd.compare` does.

    Raises:
        TypeError: a path, the baseline or shots of another type.
        UserError: nothing to compare, or something that cannot be used.
    """
    for path in (*paths, *([] if baseline is None else [baseline])):
        if not isinstance(path, (str, os.PathLike)):
            raise TypeError(
                f"metakd.compare takes paths, such as metakd.compare('outputs/a', 'outputs/b'), "
                f"not {type(path).__name__}"
            )
    wanted = [shots] if isinstance(shots, int) else shots
    check_shots(wanted)
    if not paths:
        raise UserError("compare: which runs? metakd.compare('outputs/NAME')")
    if model not in MODELS:
        hint = nearest(str(model), MODELS)
        raise UserError(f"model={model!r}: expected {', '.join(MODELS)}.{hint}")
    return Records(
        compare(
            [Path(path).expanduser() for path in paths],
            baseline=None if baseline is None else Path(baseline).expanduser(),
            model=model,
            shots=wanted,
            grouped=grouped,
        )
    )


def check_shots(shots: Any) -> None:
    """Refuse what are no numbers of shots.

    Raises:
        TypeError: saying what is expected.
    """
    if not isinstance(shots, (list, tuple)) or any(
        not isinstance(k, int) or isinstance(k, bool) or k < 1 for k in shots
    ):
        raise TypeError(f"shots={shots!r}: expected whole numbers, at least 1, such as [1, 5]")


def _record(run: Run, comparison: Comparison, number: Mapping[Run, int]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "path": str(run.path),
        "name": run.name,
        "status": run.status,
        "seed": run.seed,
        **settings_of(run, comparison.settings),
    }
    if run.reason is not None:
        found["reason"] = run.reason
    if run.warnings:
        found["warnings"] = run.warnings
    if run.info.external_pretraining:
        found["external_pretraining"] = run.info.external_pretraining
    if run not in number:
        return found
    found["set"] = number[run]
    for model, by_shots in run.headlines.items():
        for shots, entry in by_shots.items():
            if entry.value is not None:
                name = f"{model}_{entry.measure}_{shots}shot"
                found |= {name: entry.value}
                found |= {f"{name}_ci95": entry.ci95} if entry.ci95 is not None else {}
            if entry.diverged:
                found[f"{model}_diverged_{shots}shot"] = entry.diverged
    costs = {key: run.cost(comparison.model, key) for key in (*COSTS, "latency_ms_spread")}
    return found | {key: value for key, value in costs.items() if value is not None}
