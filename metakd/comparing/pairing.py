"""Differences between rows of the table, on the same evaluation tasks (method.md section 8)."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

from metakd.comparing.episodes import EpisodesError, figures_by_task
from metakd.comparing.frame import frame_of, obstacles
from metakd.comparing.gather import Run
from metakd.reports.statistics import holm, paired_test, widened
from metakd.runs.records import Measure

__all__ = ["Apart", "Pair", "RowPair", "pair_rows"]

Row = tuple[Run, ...]
"""Runs that differ only in the seed, or a single run."""

Reader = Callable[[Run, int], dict[int, float]]


@dataclass(frozen=True)
class Pair:
    """Two trained models on the same tasks: run minus baseline.

    Attributes:
        run: the one.
        baseline: the other.
        shots: of the tasks.
        measure: `accuracy` (0 to 1) or `mse`.
        tasks: number of common tasks.
        difference: its mean over the tasks.
        half: half-width of its 95 % t interval over tasks, not corrected.
        p: Student's, two-sided.
        p_adjusted: corrected for the number of pairs (Holm).
        step: the smallest amount by which such a difference can change; 0: any.
    """

    run: Run
    baseline: Run
    shots: int
    measure: Measure
    tasks: int
    difference: float
    half: float
    p: float
    p_adjusted: float
    step: float = 0.0


@dataclass(frozen=True)
class RowPair:
    """Two rows: over their common seeds if there are several, else over the tasks of one pair.

    Attributes:
        row: the one.
        baseline: the other.
        pairs: one for each common seed; a network that several seeds share (a teacher, or a student
            of which the seed decides nothing) counts once.
        difference: mean over seeds of their mean differences (or of one pair).
        half: half-width of its 95 % t interval over seeds (of one pair: over tasks).
        p: Student's, two-sided.
        p_adjusted: corrected for the number of row pairs (Holm).
        factor: what p was multiplied by for that.
    """

    row: Row
    baseline: Row
    pairs: tuple[Pair, ...]
    difference: float
    half: float
    p: float
    p_adjusted: float
    factor: float = 1.0

    @property
    def corrected_half(self) -> float:
        """Return the half-width that belongs to `p_adjusted`: 0 lies outside below p = 0.05."""
        n = len(self.pairs) if self.is_over_seeds else self.pairs[0].tasks
        return widened(self.half, n, self.factor)

    @property
    def is_over_seeds(self) -> bool:
        """Tell whether the interval is over seeds rather than tasks."""
        return len(self.pairs) > 1

    @property
    def better(self) -> float:
        """Return the difference so that above 0 is better: of an error, its negative."""
        return -self.difference if self.pairs[0].measure == "mse" else self.difference


@dataclass(frozen=True)
class Apart:
    """Runs that cannot be compared, and why.

    Attributes:
        runs: all that are concerned.
        reason: in a few words.
        partly: the rows that they belong to can be compared, by other seeds.
    """

    runs: tuple[Run, ...]
    reason: str
    partly: bool = False


def pair_rows(
    wanted: Iterable[tuple[Row, Row]], model: str, shots: Sequence[int]
) -> tuple[list[RowPair], list[Apart]]:
    """Compare rows, correct for the number of comparisons, and return which cannot be compared.

    Args:
        wanted: (row, baseline) of each comparison.
        model: `student`, `student_alone` or `teacher`.
        shots: which numbers of shots to compare on, where both rows were measured with them.
    """
    read = _reader(model)
    found: list[RowPair] = []
    apart: list[Apart] = []
    for row, baseline in wanted:
        why = _why_not(row[0], baseline[0], model)
        common: list[int] = []
        if not why:
            runs = (*row, *baseline)
            common = [k for k in shots if all(k in r.headlines.get(model, {}) for r in runs)]
        if not why and not common:
            why = _shots_reason(row, baseline, model)
        if why:
            apart.append(Apart((*row, *baseline), why))
            continue
        matched, alone = _by_seed(row, baseline)
        apart += alone
        for k in common if matched else ():
            try:
                pairs = tuple(_pair(a, b, model, k, read) for a, b in _networks(matched, model))
            except EpisodesError as error:
                apart.append(Apart((*row, *baseline), str(error)))
                continue
            found.append(_over_seeds(row, baseline, _unlike(pairs, model, read)))
    return _corrected(found), apart


def _why_not(run: Run, baseline: Run, model: str) -> str:
    frames = frame_of(run, model), frame_of(baseline, model)
    if frames[0] is None or frames[1] is None:
        without = run if frames[0] is None else baseline
        return f"'{without.path}' has no figures of the {model.replace('_', ' ')}"
    return "; ".join(obstacles(frames[1], frames[0]))


def _shots_reason(row: Row, baseline: Row, model: str) -> str:
    words = [", ".join(str(k) for k in sorted(_shots_of(it, model))) for it in (baseline, row)]
    return f"other shots: measured with {words[0] or 'none'} and {words[1] or 'none'}"


def _shots_of(row: Row, model: str) -> set[int]:
    return set.intersection(*(set(run.headlines.get(model, {})) for run in row))


def _by_seed(row: Row, baseline: Row) -> tuple[list[tuple[Run, Run]], list[Apart]]:
    """Match runs by seed; two single runs are matched whatever their seeds are."""
    if len(row) == len(baseline) == 1:
        return [(row[0], baseline[0])], []
    matched = [(a, b) for a, b in product(row, baseline) if a.seed == b.seed is not None]
    if not matched:
        seeds = " and ".join(", ".join(str(r.seed) for r in it) for it in (baseline, row))
        return [], [Apart((*row, *baseline), f"no seed in common: {seeds}")]
    seen = {run for pair in matched for run in pair}
    left = tuple(run for run in (*row, *baseline) if run not in seen)
    if not left:
        return matched, []
    seeds = ", ".join(str(s) for s in sorted({r.seed for r in left if r.seed is not None}))
    return matched, [
        Apart(left, f"no run of that seed on the other side: seed {seeds}", partly=True)
    ]


def _networks(matched: Sequence[tuple[Run, Run]], model: str) -> Iterable[tuple[Run, Run]]:
    """Return the pairs of runs, each pair of networks once.

    Differences between two teachers that all seeds share would have no spread over them.
    """
    found: dict[tuple[Hashable, Hashable], tuple[Run, Run]] = {}
    for a, b in matched:
        found.setdefault((a.network(model), b.network(model)), (a, b))
    return found.values()


def _unlike(pairs: tuple[Pair, ...], model: str, read: Reader) -> tuple[Pair, ...]:
    """Return the pairs; the first alone if all have the same figures, also of every task.

    Then the seed decided nothing (networks that were not trained, say), and what is over seeds
    would have no spread.
    """
    figures = [(read(p.run, p.shots), read(p.baseline, p.shots)) for p in pairs]
    if any(one != figures[0] for one in figures):
        return pairs
    known = {(p.run.figures(model), p.baseline.figures(model)) for p in pairs}
    return pairs[:1] if len(known) == 1 else pairs


def _reader(model: str) -> Reader:
    """Return a reader of runs' tasks that reads each file once."""
    known: dict[tuple[Run, int], dict[int, float] | EpisodesError] = {}

    def read(run: Run, shots: int) -> dict[int, float]:
        if (run, shots) not in known:
            try:
                known[run, shots] = figures_by_task(run, model, shots)
            except EpisodesError as error:
                known[run, shots] = EpisodesError(f"'{run.path}': {error}")
        found = known[run, shots]
        if isinstance(found, EpisodesError):
            raise found
        return found

    return read


def _pair(run: Run, baseline: Run, model: str, shots: int, read: Reader) -> Pair:
    mine, other = read(run, shots), read(baseline, shots)
    shared = _shared(run, mine, other)
    entry = run.headlines[model][shots]
    differences = [mine[task] - other[task] for task in shared]
    step = entry.step_of_a_task
    # The same answers everywhere are no coincidence.
    mean, half, p = paired_test(differences, step if any(differences) else 0.0)
    count = len(shared)
    return Pair(run, baseline, shots, entry.measure, count, mean, half, p, p, step / count)


def _shared(run: Run, mine: Mapping[int, float], other: Mapping[int, float]) -> list[int]:
    """Return the numbers of the common tasks: all tasks of the run with fewer."""
    fewer, more = sorted((mine.keys(), other.keys()), key=len)
    if not fewer <= more:
        raise EpisodesError(f"other task numbers in episodes.csv of '{run.path}'")
    return sorted(fewer)


def _over_seeds(row: Row, baseline: Row, pairs: tuple[Pair, ...]) -> RowPair:
    if len(pairs) == 1:
        mean, half, p = pairs[0].difference, pairs[0].half, pairs[0].p
    else:
        differ = any(pair.difference or pair.half for pair in pairs)
        step = min(pair.step for pair in pairs) if differ else 0.0
        mean, half, p = paired_test([pair.difference for pair in pairs], step)
    return RowPair(row, baseline, pairs, mean, half, p, p)


def _corrected(found: Sequence[RowPair]) -> list[RowPair]:
    pairs = [pair for row_pair in found for pair in row_pair.pairs]
    single = iter(holm([pair.p for pair in pairs]))
    of_rows = holm([row_pair.p for row_pair in found])
    return [
        replace(
            row_pair,
            pairs=tuple(replace(pair, p_adjusted=next(single)[0]) for pair in row_pair.pairs),
            p_adjusted=p,
            factor=factor,
        )
        for row_pair, (p, factor) in zip(found, of_rows, strict=True)
    ]
