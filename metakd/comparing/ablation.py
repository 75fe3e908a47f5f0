"""The effects of meta-learning and distillation, and their interaction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from metakd.comparing.compare import Comparison
from metakd.comparing.episodes import EpisodesError, figures_by_task
from metakd.comparing.gather import Run
from metakd.comparing.pairing import Row
from metakd.comparing.sentences import RESOLVED, probability
from metakd.reports.statistics import holm, holm_factors, paired_test, widened

__all__ = ["PARTS", "Ablation", "Effect", "ablation", "effects_json", "verdicts"]

PARTS = ("plain", "meta only", "distillation only", "fused")
"""The four ablations: neither, one, the other, both."""

EFFECTS: Mapping[str, Mapping[str, int]] = {
    "meta-learning": {"meta only": 1, "plain": -1},
    "distillation": {"distillation only": 1, "plain": -1},
    "both": {"fused": 1, "plain": -1},
}
"""The effects, as weights of the ablations' figures; p is corrected for their number."""

ON_TOP: Mapping[str, Mapping[str, int]] = {
    "meta-learning on top of distillation": {"fused": 1, "distillation only": -1},
    "distillation on top of meta-learning": {"fused": 1, "meta only": -1},
}
INTERACTION: Mapping[str, Mapping[str, int]] = {
    "interaction": {"fused": 1, "meta only": -1, "distillation only": -1, "plain": 1}
}
"""The interaction: the effect of both beyond the sum of the two parts."""


@dataclass(frozen=True)
class Effect:
    """A difference between ablations, on the same tasks and seed by seed.

    Attributes:
        name: a key of `EFFECTS`, `ON_TOP` or `INTERACTION`.
        shots: of the tasks.
        seeds: in which all of its ablations are finished.
        tasks: of each seed.
        difference: of the accuracies (0 to 1); mean over seeds, of one seed over its tasks.
        half: half-width of its 95 % t interval over seeds, of one seed over its tasks.
        p: Student's, two-sided.
        p_adjusted: corrected for the number of `EFFECTS` (Holm); for others, of shots.
        factor: what p was multiplied by for that.
    """

    name: str
    shots: int
    seeds: tuple[int, ...]
    tasks: int
    difference: float
    half: float
    p: float
    p_adjusted: float
    factor: float = 1.0

    @property
    def corrected_half(self) -> float:
        """Return the half-width that belongs to `p_adjusted`: 0 lies outside below p = 0.05."""
        n = len(self.seeds) if len(self.seeds) > 1 else self.tasks
        return widened(self.half, n, self.factor)


@dataclass(frozen=True)
class Ablation:
    """The result of an ablation.

    Attributes:
        rows: by ablation, its finished runs.
        effects: those that can be computed from them.
        algorithm: name of the meta-algorithm.
        distill: name of the distillation.
        notes: on missing or unexpected runs.
    """

    rows: Mapping[str, Row]
    effects: tuple[Effect, ...]
    algorithm: str
    distill: str
    notes: tuple[str, ...]

    def find(self, name: str, shots: int) -> Effect | None:
        """Return an effect, None if it could not be computed."""
        return next((e for e in self.effects if (e.name, e.shots) == (name, shots)), None)


def ablation(
    comparison: Comparison, parts: Mapping[Path, str], algorithm: str, distill: str
) -> Ablation:
    """Return the effects of the parts in `comparison`.

    Args:
        comparison: of the student, of classification.
        parts: by a run's folder, which of `PARTS` it is.
        algorithm: name of the meta-algorithm.
        distill: name of the distillation.
    """
    rows: dict[str, Row] = {}
    notes: list[str] = []
    for number, comparable in enumerate(comparison.comparable):
        for row in comparable.rows:
            part = parts[row[0].path]
            if number or part in rows:
                names = ", ".join(run.path.name for run in row)
                notes.append(f"{part} ({names}) is left out: it is not comparable with the others")
            else:
                rows[part] = row
    shots = comparison.comparable[0].shots if comparison.comparable else ()
    figures = _reader(comparison.model)
    effects: list[Effect] = []
    for family in (EFFECTS, INTERACTION, ON_TOP):
        found: list[Effect] = []
        for k in shots:
            for name, weights in family.items():
                try:
                    effect = _effect(name, weights, rows, k, figures)
                except EpisodesError as error:
                    notes.append(f"{name}, {k}-shot: {error}")
                    continue
                found += [effect] if effect is not None else []
        p_values = [effect.p for effect in found]
        corrected = zip(found, holm(p_values), holm_factors(p_values), strict=True)
        effects += [replace(e, p_adjusted=p, factor=factor) for e, p, factor in corrected]
    teachers = {run.info.teacher for row in rows.values() for run in row} - {None}
    if len(teachers) > 1:
        notes.append(f"these runs had {len(teachers)} different teachers, not one")
    return Ablation(rows, tuple(effects), algorithm, distill, tuple(dict.fromkeys(notes)))


def verdicts(found: Ablation) -> Iterator[str]:
    """Yield the verdicts for each number of shots, then notes."""
    for shots in sorted({effect.shots for effect in found.effects}):
        known = [e for name in EFFECTS if (e := found.find(name, shots)) is not None]
        if known:
            yield _verdict(known, found)
        interaction = found.find("interaction", shots)
        if interaction is not None:
            yield _sum(interaction, found)
        on_top = [e for name in ON_TOP if (e := found.find(name, shots)) is not None]
        if on_top:
            said = ", ".join(f"{e.name} {_signed(e)}" for e in on_top)
            yield (
                f"{shots}-shot, what a part adds where the other one is there already: {said}"
                f"{_corrected(ON_TOP, found, '; intervals')}."
            )
    yield from found.notes


def effects_json(found: Ablation) -> dict[str, Any]:
    """Return the same for programs: `parts` and `effects`."""
    return {
        "algorithm": found.algorithm,
        "distill": found.distill,
        "parts": {part: [str(run.path) for run in row] for part, row in found.rows.items()},
        "effects": [
            {
                "effect": e.name,
                "shots": e.shots,
                "seeds": list(e.seeds),
                "tasks": e.tasks,
                "difference": e.difference,
                "ci95": e.half,
                "ci95_adjusted": e.corrected_half,
                "p": e.p,
                "p_adjusted": e.p_adjusted,
            }
            for e in found.effects
        ],
        "verdict": [*verdicts(found)],
    }


# --- figures


def _reader(model: str) -> Any:
    @cache
    def read(run: Run, shots: int) -> dict[int, float]:
        try:
            return figures_by_task(run, model, shots)
        except EpisodesError as error:
            raise EpisodesError(f"'{run.path}': {error}") from error

    return read


def _effect(
    name: str, weights: Mapping[str, int], rows: Mapping[str, Row], shots: int, figures: Any
) -> Effect | None:
    """Return the weighted sum of the ablations' figures; None if one of them is missing."""
    if any(part not in rows for part in weights):
        return None
    by_seed = {part: {run.seed: run for run in rows[part]} for part in weights}
    seeds = sorted(s for s in set.intersection(*map(set, by_seed.values())) if s is not None)
    sums: list[list[float]] = []
    for seed in seeds:
        runs = [(by_seed[part][seed], weight) for part, weight in weights.items()]
        values = [(figures(run, shots), weight) for run, weight in runs]
        first = values[0][0]
        if any(v.keys() != first.keys() for v, _ in values):
            raise EpisodesError(f"other task numbers in the episodes.csv files of seed {seed}")
        sums.append([sum(w * v[task] for v, w in values) for task in sorted(first)])
    if not sums:
        return None
    over = [sum(one) / len(one) for one in sums] if len(sums) > 1 else sums[0]
    mean, half, p = paired_test(over)
    return Effect(name, shots, tuple(seeds), len(sums[0]), mean, half, p, p)


# --- words


def _verdict(known: Sequence[Effect], found: Ablation) -> str:
    """Return the sentence: what helped, then what harmed, then what is not resolved."""
    names = {
        "meta-learning": f"meta-learning ({found.algorithm})",
        "distillation": f"distillation ({found.distill})",
        "both": "both together",
    }
    clauses: list[tuple[int, str]] = []
    for effect in known:
        name, p = names[effect.name], probability(effect.p_adjusted)
        if effect.p_adjusted >= RESOLVED:
            clauses.append((2, f"no effect of {name} is resolved ({_signed(effect)}, {p})"))
        elif effect.difference > 0:
            clauses.append((0, f"{name} helped by {_size(effect)} ({p})"))
        else:
            clauses.append((1, f"{name} harmed by {_size(effect)} ({p})"))
    clauses.sort(key=lambda clause: clause[0])
    first = known[0]
    sentence = (
        f"{first.shots}-shot, against plain, {_on(first)}: "
        f"{'; '.join(text for _, text in clauses)}"
        f"{_corrected(EFFECTS, found, '; intervals and p')}."
    )
    if len(first.seeds) == 1:
        sentence += " This holds for these trained models; only more seeds tell of the settings."
    return sentence


def _corrected(family: Mapping[str, Any], found: Ablation, what: str) -> str:
    """Return for how many effects a family's figures are corrected; empty if there is one."""
    number = len([e for e in found.effects if e.name in family])
    return f"{what} corrected for {number} comparisons" if number > 1 else ""


def _sum(effect: Effect, found: Ablation) -> str:
    begin = f"{effect.shots}-shot, both together against the sum of the two parts"
    figure = f"{_signed(effect)}, {probability(effect.p_adjusted)}"
    figure += _corrected(INTERACTION, found, "; interval and p")
    if effect.p_adjusted >= RESOLVED:
        return f"{begin}: no interaction is resolved ({figure})."
    more = "more: each helps the other" if effect.difference > 0 else "less: they overlap"
    return f"{begin} give {more} ({figure})."


def _on(effect: Effect) -> str:
    tasks = f"the same {effect.tasks} tasks"
    if len(effect.seeds) == 1:
        return f"seed {effect.seeds[0]} on {tasks}"
    return f"over {len(effect.seeds)} seeds, each on {tasks}"


def _size(effect: Effect) -> str:
    return f"{100 * abs(effect.difference):.2f} ± {100 * effect.corrected_half:.2f} points"


def _signed(effect: Effect) -> str:
    return f"{100 * effect.difference:+.2f} ± {100 * effect.corrected_half:.2f} points"
