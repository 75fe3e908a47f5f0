"""The effects of meta-learning and distillation, and their interaction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from metakd.comparing.columns import differing
from metakd.comparing.compare import Comparison
from metakd.comparing.episodes import EpisodesError, figures_by_task
from metakd.comparing.gather import Run
from metakd.comparing.pairing import Row
from metakd.comparing.sentences import RESOLVED, probability
from metakd.reports.statistics import holm, paired_test, widened
from metakd.runs.records_compare import AblationRecord, EffectName, EffectRecord, Parts

__all__ = ["PARTS", "Ablation", "ablation", "ablation_record", "verdicts"]

PARTS: tuple[Parts, ...] = ("plain", "meta only", "distillation only", "fused")
"""The four ablations: neither, one, the other, both."""

EFFECTS: Mapping[EffectName, Mapping[Parts, int]] = {
    "meta-learning": {"meta only": 1, "plain": -1},
    "distillation": {"distillation only": 1, "plain": -1},
    "both": {"fused": 1, "plain": -1},
}
"""The effects, as weights of the ablations' figures; p is corrected for their number."""

ABLATED = ("algorithm", "distill")
"""Groups in which the ablations differ."""

ON_TOP: Mapping[EffectName, Mapping[Parts, int]] = {
    "meta-learning on top of distillation": {"fused": 1, "distillation only": -1},
    "distillation on top of meta-learning": {"fused": 1, "meta only": -1},
}
INTERACTION: Mapping[EffectName, Mapping[Parts, int]] = {
    "interaction": {"fused": 1, "meta only": -1, "distillation only": -1, "plain": 1}
}
"""The interaction: the effect of both beyond the sum of the two parts."""


@dataclass(frozen=True)
class Ablation:
    """The result of an ablation.

    Attributes:
        rows: by ablation, its finished runs.
        effects: those that can be computed from them; p is corrected for the number of `EFFECTS`
            (Holm), of others for that of shots.
        algorithm: name of the meta-algorithm.
        distill: name of the distillation.
        notes: on missing or unexpected runs.
    """

    rows: Mapping[Parts, Row]
    effects: tuple[EffectRecord, ...]
    algorithm: str
    distill: str
    notes: tuple[str, ...]

    def find(self, name: str, shots: int) -> EffectRecord | None:
        """Return an effect, None if it could not be computed."""
        return next((e for e in self.effects if (e.effect, e.shots) == (name, shots)), None)


def ablation(
    comparison: Comparison, parts: Mapping[Path, Parts], algorithm: str, distill: str
) -> Ablation:
    """Return the effects of the parts in `comparison`.

    Args:
        comparison: of the student, of classification.
        parts: by a run's folder, which of `PARTS` it is.
        algorithm: name of the meta-algorithm.
        distill: name of the distillation.
    """
    rows: dict[Parts, Row] = {}
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
    effects: list[EffectRecord] = []
    for family in (EFFECTS, INTERACTION, ON_TOP):
        found: list[EffectRecord] = []
        for k in shots:
            for name, weights in family.items():
                try:
                    effect = _effect(name, weights, rows, k, comparison.model, figures)
                except EpisodesError as error:
                    notes.append(f"{name}, {k}-shot: {error}")
                    continue
                found += [effect] if effect is not None else []
        for e, (p, factor) in zip(found, holm([effect.p for effect in found]), strict=True):
            n = len(e.seeds) if len(e.seeds) > 1 else e.tasks
            half = widened(e.ci95, n, factor)
            effects.append(e.model_copy(update={"p_adjusted": p, "ci95_adjusted": half}))
    runs = [run for row in rows.values() for run in row]
    teachers = {run.info.teacher for run in runs} - {None}
    if len(teachers) > 1:
        notes.append(f"these runs had {len(teachers)} different teachers, not one")
    further = [key for key in differing(runs) if key.partition(".")[0] not in ABLATED]
    if further:
        notes.append(
            f"these runs differ in {', '.join(further)}, too, so that an effect is also one of that"
        )
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
            said = ", ".join(f"{e.effect} {_signed(e)}" for e in on_top)
            yield (
                f"{shots}-shot, what a part adds where the other one is there already: {said}"
                f"{_corrected(ON_TOP, found, '; intervals')}."
            )
    yield from found.notes


def ablation_record(found: Ablation, missing: Sequence[str] = ()) -> AblationRecord:
    """Return the same for programs, with the lines on runs that are missing."""
    return AblationRecord(
        algorithm=found.algorithm,
        distill=found.distill,
        parts={part: [str(run.path) for run in row] for part, row in found.rows.items()},
        effects=list(found.effects),
        verdict=list(verdicts(found)),
        missing=list(missing),
    )


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
    name: EffectName,
    weights: Mapping[Parts, int],
    rows: Mapping[Parts, Row],
    shots: int,
    model: str,
    figures: Any,
) -> EffectRecord | None:
    """Return the weighted sum of the ablations' figures, not corrected; None if one is missing."""
    if any(part not in rows for part in weights):
        return None
    by_seed = {part: {run.seed: run for run in rows[part]} for part in weights}
    seeds = sorted(s for s in set.intersection(*map(set, by_seed.values())) if s is not None)
    sums: list[list[float]] = []
    of_seeds = []
    for seed in seeds:
        runs = [(by_seed[part][seed], weight) for part, weight in weights.items()]
        values = [(figures(run, shots), weight) for run, weight in runs]
        first = values[0][0]
        if any(v.keys() != first.keys() for v, _ in values):
            raise EpisodesError(f"other task numbers in the episodes.csv files of seed {seed}")
        sums.append([sum(w * v[task] for v, w in values) for task in sorted(first)])
        of_seeds.append([v for v, _ in values])
    if all(one == of_seeds[0] for one in of_seeds):  # the seed decided nothing: one network each
        sums, seeds = sums[:1], seeds[:1]
    if not sums:
        return None
    step = next(iter(rows.values()))[0].headlines[model][shots].step_of_a_task
    over = sums[0]
    if len(sums) > 1:
        step /= len(sums[0])
        over = [sum(one) / len(one) for one in sums]
    mean, half, p = paired_test(over, step if any(map(any, sums)) else 0.0)
    return EffectRecord(
        effect=name,
        shots=shots,
        seeds=seeds,
        tasks=len(sums[0]),
        difference=mean,
        ci95=half,
        ci95_adjusted=half,
        p=p,
        p_adjusted=p,
    )


# --- words


def _verdict(known: Sequence[EffectRecord], found: Ablation) -> str:
    """Return the sentence: what helped, then what harmed, then what is not resolved."""
    names = {
        "meta-learning": f"meta-learning ({found.algorithm})",
        "distillation": f"distillation ({found.distill})",
        "both": "both together",
    }
    clauses: list[tuple[int, str]] = []
    for effect in known:
        name, p = names[effect.effect], probability(effect.p_adjusted)
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


def _corrected(family: Mapping[EffectName, Any], found: Ablation, what: str) -> str:
    """Return for how many effects a family's figures are corrected; empty if there is one."""
    number = len([e for e in found.effects if e.effect in family])
    return f"{what} corrected for {number} comparisons" if number > 1 else ""


def _sum(effect: EffectRecord, found: Ablation) -> str:
    begin = f"{effect.shots}-shot, both together against the sum of the two parts"
    figure = f"{_signed(effect)}, {probability(effect.p_adjusted)}"
    figure += _corrected(INTERACTION, found, "; interval and p")
    if effect.p_adjusted >= RESOLVED:
        return f"{begin}: no interaction is resolved ({figure})."
    more = "more: each helps the other" if effect.difference > 0 else "less: they overlap"
    return f"{begin} give {more} ({figure})."


def _on(effect: EffectRecord) -> str:
    tasks = f"the same {effect.tasks} tasks"
    if len(effect.seeds) == 1:
        return f"seed {effect.seeds[0]} on {tasks}"
    return f"over {len(effect.seeds)} seeds, each on {tasks}"


def _size(effect: EffectRecord) -> str:
    return f"{100 * abs(effect.difference):.2f} ± {100 * effect.ci95_adjusted:.2f} points"


def _signed(effect: EffectRecord) -> str:
    return f"{100 * effect.difference:+.2f} ± {100 * effect.ci95_adjusted:.2f} points"
