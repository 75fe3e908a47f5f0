"""The report of a search: best trials, importances, figures, and the command to continue with."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from metakd.config.overrides import parse
from metakd.config.schema import Config
from metakd.errors import UserError
from metakd.reports.uncut import print_uncut
from metakd.runs.folder import open_run
from metakd.searching.figures import Tried, draw_history, draw_pareto
from metakd.searching.plan import PART, Search
from metakd.searching.repeats import is_repeated
from metakd.searching.settings import DIRECTIONS, MEASURES
from metakd.sweeps.recipe import shown
from metakd.sweeps.state import Sweep

if TYPE_CHECKING:
    import optuna

__all__ = ["best_of", "command_for", "evaluated_on", "importances", "report", "tried_of"]

SHOWN = 10
SEEDS = 3
FEWEST = 4
"""Fewest complete trials for which importances are computed."""

SEVERAL = 0.005
"""Shares of importance below this are not shown."""


def report(sweep: Sweep, search: Search, study: optuna.Study, console: Console) -> None:
    """Print the best trials, importances and the next command; draw the figures."""
    tried = tried_of(sweep, study)
    best = best_of(tried, search.settings.objectives)
    if not best:
        console.print(Text("no trial is complete"))
        return
    _print_table(search, best[:SHOWN], console)
    objectives = search.settings.objectives
    config = search.base.config
    what = "examples" if config.task.whole else "classes"
    lines = [evaluated_on(config)]
    for i, objective in enumerate(objectives):
        # Costs follow from the settings directly.
        shares = importances(study, i) if objective in MEASURES else {}
        if shares:
            said = ", ".join(f"{k} {v:.2f}" for k, v in shares.items() if v >= SEVERAL)
            lines.append(f"importance for {objective}: {said}")
    figures = sweep.folder / "figures"
    try:
        figures.mkdir(exist_ok=True)
        if len(objectives) == 1:
            lines.append(str(draw_history(tried, objectives[0], figures / "search.png")))
        else:
            lines.append(str(draw_pareto(tried, objectives, figures / "search.png")))
    except OSError as error:
        lines.append(f"warning: no figure in '{figures}': {error.strerror}")
    which = "best" if len(objectives) == 1 else f"best by {objectives[0]}"
    chosen = min(best, key=lambda one: _goodness(one, objectives[0], 0))
    lines.append(f"the {which} (trial {chosen.number}) with other seeds, on the test {what}:")
    lines.append(f"  {command_for(search, chosen)}")
    for line in lines:
        console.print(Text(line), soft_wrap=True, highlight=False)


def evaluated_on(config: Config) -> str:
    """Return the line on what trials were evaluated on."""
    if config.task.whole:
        return "evaluated on the validation examples; the test examples were not used"
    tasks = config.evaluate.tasks
    return f"evaluated on {tasks} tasks of the validation classes; the test classes were not used"


def tried_of(sweep: Sweep, study: optuna.Study) -> list[Tried]:
    """Return the complete and the pruned trials."""
    found = []
    for trial in study.get_trials(deepcopy=False):
        state = trial.state.name.lower()
        if state not in ("complete", "pruned") or is_repeated(trial):
            continue
        last = None
        if trial.intermediate_values:
            last = trial.intermediate_values[max(trial.intermediate_values)]
        values = tuple(trial.values) if state == "complete" else None
        folder = sweep.folder / str(trial.number)
        found.append(Tried(trial.number, values, last, dict(trial.params), _interval(folder)))
    return found


def best_of(tried: Sequence[Tried], objectives: Sequence[str]) -> list[Tried]:
    """Return the complete trials, best first; of several objectives the Pareto front.

    The front is in the order of the last objective.
    """
    complete = [one for one in tried if one.values is not None]
    if len(objectives) == 1:
        return sorted(complete, key=lambda one: _goodness(one, objectives[0], 0))
    points = {
        one.number: [_goodness(one, name, i) for i, name in enumerate(objectives)]
        for one in complete
    }
    front = [
        one
        for one in complete
        if not any(_beats(points[other.number], points[one.number]) for other in complete)
    ]
    last = len(objectives) - 1
    return sorted(front, key=lambda one: _goodness(one, objectives[last], last))


def importances(study: optuna.Study, objective: int) -> dict[str, float]:
    """Return by parameter its importance for an objective (PED-ANOVA, shares), largest first.

    Parameters that not every complete trial has are left out; empty with too few trials. Trials
    that were not run, since they repeat earlier ones, do not count.
    """
    import optuna
    from optuna.importance import get_param_importances
    from optuna.trial import TrialState

    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    complete = [trial for trial in complete if not is_repeated(trial)]
    if len(complete) < FEWEST or len({t.values[objective] for t in complete}) < 2:
        return {}
    # What leads to the smallest values is found, also where a larger one is better.
    sign = -1.0 if study.directions[objective] == optuna.study.StudyDirection.MAXIMIZE else 1.0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            counted = optuna.create_study(directions=study.directions)
            counted.add_trials(complete)
            shares = get_param_importances(
                counted,
                params=[p for p in complete[0].params if all(p in t.params for t in complete)],
                target=lambda t: sign * t.values[objective],
            )
            return dict(shares)
    except (ValueError, RuntimeError):
        return {}  # no parameter that all trials share, or none that varies


def command_for(search: Search, trial: Tried) -> str:
    """Return the command that trains a trial's settings with other seeds, for the test classes."""
    words = [
        word
        for word in search.trial_words(trial.params)
        if parse([word])[0].key_or_group not in (PART, "seed")
    ]
    first = search.base.config.seed + 1
    seeds = ",".join(str(first + i) for i in range(SEEDS))
    folder = search.base.config_dir  # choices of one's own are there
    own = [] if folder is None else ["--config-dir", shlex.quote(str(folder))]
    return " ".join(["metakd train -m", *own, *map(shlex.quote, words), f"seed={seeds}"])


def _goodness(trial: Tried, objective: str, i: int) -> float:
    """Return what is smaller for a better trial."""
    assert trial.values is not None
    return -trial.values[i] if DIRECTIONS[objective] == "maximize" else trial.values[i]


def _beats(one: Sequence[float], other: Sequence[float]) -> bool:
    return list(one) != list(other) and all(a <= b for a, b in zip(one, other, strict=True))


def _interval(folder: Path) -> float | None:
    try:
        head = open_run(folder).read_results().student.headline
    except UserError:
        return None
    return None if head is None else head.ci95


def _print_table(search: Search, best: Sequence[Tried], console: Console) -> None:
    objectives = search.settings.objectives
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.title = "Pareto front" if len(objectives) > 1 else "best trials"
    table.add_column("trial", justify="right")
    for name in (*objectives, *(p.key for p in search.parameters)):
        table.add_column(name, justify="right", no_wrap=True)
    for one in best:
        assert one.values is not None
        figures = [
            _figure(name, value, one.ci95)
            for name, value in zip(objectives, one.values, strict=True)
        ]
        settings = [_value(one.params.get(p.key, "")) for p in search.parameters]
        table.add_row(*(Text(cell) for cell in (str(one.number), *figures, *settings)))
    print_uncut(table, console)


def _figure(name: str, value: float, interval: float | None) -> str:
    if name == "accuracy":
        return f"{100 * value:.1f}" + (f" ± {100 * interval:.1f}" if interval else "") + " %"
    if name in MEASURES:
        return f"{value:.3g}" + (f" ± {interval:.2g}" if interval else "")
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _value(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else shown("", value) if value != "" else ""
