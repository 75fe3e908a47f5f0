"""Comparing runs: from folders to figures, paired differences and Pareto fronts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import cast

from metakd.comparing.columns import differing, groups
from metakd.comparing.figures import diverged_of, figure_of, fronts_of, headline_shots, machine_of
from metakd.comparing.frame import Frame, frame_of, obstacles
from metakd.comparing.gather import Run, gather
from metakd.comparing.pairing import Apart, Row, RowPair, pair_rows
from metakd.errors import UserError
from metakd.runs.records import NO_SHOTS, Model, shots_word
from metakd.runs.records_compare import CostName

__all__ = [
    "MOST_PAIRS",
    "Comparable",
    "Comparison",
    "apart_sets",
    "comparable_sets",
    "compare",
    "figure_of",
]

MOST_PAIRS = 500
"""Without a baseline all pairs of rows are compared, up to this number."""


@dataclass(frozen=True)
class Comparable:
    """Rows that were evaluated on the same tasks.

    Attributes:
        frame: of their tasks; None: no figures of the compared model.
        rows: best first.
        shots: that any of them was measured with, of those asked for.
        fronts: by cost, for each row whether it is on the front of the first shots' figures.
        tasks: numbers of tasks of the rows; the first tasks are the same.
    """

    frame: Frame | None
    rows: tuple[Row, ...]
    shots: tuple[int, ...]
    fronts: Mapping[CostName, tuple[bool, ...]]
    tasks: tuple[int, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """A comparison of runs.

    Attributes:
        runs: every run, in the order found.
        settings: in which they differ, by dotted name, and what a column calls each.
        model: whose figures are compared.
        comparable: sets of rows, the largest first.
        baseline: the row that others are compared with, if one was named.
        baseline_run: the run that names it.
        pairs: differences, row by row.
        apart: what cannot be compared, and why.
        notes: sentences for people.
    """

    runs: tuple[Run, ...]
    settings: Mapping[str, str]
    model: Model
    comparable: tuple[Comparable, ...]
    baseline: Row | None
    baseline_run: Run | None
    pairs: tuple[RowPair, ...]
    apart: tuple[Apart, ...]
    notes: tuple[str, ...]

    @property
    def unfinished(self) -> list[Run]:
        """Return the runs without figures."""
        return [run for run in self.runs if run.results is None]

    def pair(self, row: Row, other: Row, shots: int) -> RowPair | None:
        """Return the difference of two rows, whichever is the baseline of the other."""
        return self._by_rows.get((row, other, shots)) or self._by_rows.get((other, row, shots))

    @cached_property
    def _by_rows(self) -> Mapping[tuple[Row, Row, int], RowPair]:
        return {(p.row, p.baseline, p.pairs[0].shots): p for p in self.pairs}


def compare(
    paths: Sequence[Path],
    *,
    baseline: Path | None = None,
    model: str = "student",
    shots: Sequence[int] = (),
    grouped: bool = True,
) -> Comparison:
    """Compare the runs in and below `paths`.

    Args:
        paths: runs and folders that hold some.
        baseline: a run, or one of a group; None: all rows are compared with all.
        model: `student`, `student_alone` or `teacher`.
        shots: numbers of shots to compare on; none: those of the headlines.
        grouped: group runs that differ only in the seed.

    Raises:
        UserError: a path that does not exist, no run, a baseline without figures, or shots that no
            run was evaluated with.
    """
    runs, notes = gather(paths)
    chosen = None
    if baseline is not None:
        runs, chosen = _with_baseline(runs, baseline)
    finished = [run for run in runs if run.results is not None]
    frames = {run: frame_of(run, model) for run in finished}
    rows = groups(finished, frames) if grouped else [(run,) for run in finished]
    notes += _not_measured(finished, shots, model)
    wanted_shots = sorted(set(shots)) or headline_shots(finished, model)
    sets = comparable_sets(rows, frames, wanted_shots, model)
    base = next((row for row in rows if chosen in row), None)
    if base is not None:
        pairs, apart = pair_rows(((row, base) for row in rows if row is not base), model,
                                 wanted_shots)  # fmt: skip
        sets.sort(key=lambda s: base not in s.rows)
    else:
        # Of each pair the better row first.
        between = [pair for s in sets if s.frame is not None for pair in combinations(s.rows, 2)]
        if len(between) > MOST_PAIRS:
            notes.append(
                f"{len(rows)} rows make {len(between)} pairs, too many to compare; "
                "name one to compare the others with: --baseline RUN"
            )
            between = []
        pairs, apart = pair_rows(between, model, wanted_shots)
        # With all pairs, some seed is nearly always missing on one side.
        apart = [*apart_sets(sets, model), *(a for a in apart if not a.partly)]
    notes += _remarks(finished, sets, wanted_shots, model)
    return Comparison(
        runs=tuple(runs),
        settings=differing(runs),
        model=cast(Model, model),
        comparable=tuple(sets),
        baseline=base,
        baseline_run=chosen,
        pairs=tuple(pairs),
        apart=tuple(dict.fromkeys(apart)),
        notes=tuple(notes),
    )


def _not_measured(finished: Sequence[Run], shots: Sequence[int], model: str) -> list[str]:
    """Return a note on shots that were asked for and that no run was evaluated with.

    Raises:
        UserError: there are no others.
    """
    known = {k for run in finished for k in run.headlines.get(model, {})} - {NO_SHOTS}
    missing = sorted(set(shots) - known)
    if not missing or not known:
        return []
    words = ", ".join(shots_word(k) for k in missing)
    there = ",".join(map(str, sorted(known)))
    said = f"no run was evaluated {words}; there are --shots {there}"
    if len(missing) < len(set(shots)):
        return [said]
    raise UserError(f"{said}; more: metakd evaluate RUN task.shots={missing[0]}")


def _with_baseline(runs: list[Run], baseline: Path) -> tuple[list[Run], Run]:
    found = [run for run in runs if run.path.resolve() == baseline.resolve()]
    if not found:
        found, _ = gather([baseline])
        if len(found) > 1:
            raise UserError(
                f"--baseline '{baseline}' holds {len(found)} runs; name one of them, such as "
                f"'{found[0].path}'"
            )
        runs = [*found, *runs]
    if found[0].results is None:
        why = f": {found[0].reason}" if found[0].reason else ""
        raise UserError(
            f"--baseline '{baseline}' has no figures to compare with (status "
            f"{found[0].status}{why}); name a finished run"
        )
    return runs, found[0]


def comparable_sets(
    rows: Sequence[Row], frames: Mapping[Run, Frame | None], shots: Sequence[int], model: str
) -> list[Comparable]:
    """Return sets of rows that were evaluated on the same tasks, largest set and best rows first.

    Args:
        rows: of finished runs.
        frames: of each run.
        shots: on which they are compared, in this order.
        model: whose figures.
    """
    found: list[tuple[Frame | None, set[int], list[Row]]] = []
    for row in rows:
        frame = frames[row[0]]
        own = {k for k in shots if figure_of(row, model, k) or diverged_of(row, model, k)}
        near = [s for s in found if _belongs(frame, own, s)]
        for s in near:
            found.remove(s)
        merged = [r for s in near for r in s[2]]
        found.append((frame, own.union(*(s[1] for s in near)), [*merged, row]))
    found.sort(key=lambda s: (s[0] is None, -len(s[2])))
    order = {row: i for i, row in enumerate(rows)}
    sets = []
    for frame, measured, members in found:
        ordered = tuple(sorted(measured))

        def rank(row: Row, ordered: tuple[int, ...] = ordered) -> tuple[float, int]:
            figure = figure_of(row, model, ordered[0]) if ordered else None
            return (-figure.goodness if figure else math.inf, order[row])

        ranked = tuple(sorted(members, key=rank))
        counts = {f.tasks for row in ranked if (f := frames[row[0]]) is not None and f.tasks}
        fronts = fronts_of(ranked, ordered, model)
        sets.append(Comparable(frame, ranked, ordered, fronts, tuple(sorted(counts))))
    return sets


def _belongs(
    frame: Frame | None, shots: set[int], to: tuple[Frame | None, set[int], list[Row]]
) -> bool:
    if frame is None or to[0] is None:
        return frame is to[0]
    return not obstacles(frame, to[0]) and bool(shots & to[1])


def apart_sets(sets: Sequence[Comparable], model: str) -> Iterator[Apart]:
    """Yield why each set cannot be compared with the first one."""
    for other in sets[1:]:
        runs = tuple(run for row in other.rows for run in row)
        if other.frame is None:
            name = model.replace("_", " ")
            yield Apart(runs, f"no figures of the {name}")
            continue
        first = sets[0]
        why = "; ".join(obstacles(first.frame, other.frame)) if first.frame else ""
        if not why:
            words = [", ".join(map(str, s.shots)) or "none" for s in (first, other)]
            why = f"other shots: measured with {words[0]} and {words[1]}"
        yield Apart((first.rows[0][0], *runs), why)


def _remarks(
    finished: Sequence[Run], sets: Sequence[Comparable], shots: Sequence[int], model: str
) -> Iterator[str]:
    known = {k for r in finished for k in r.headlines.get(model, {})} - {NO_SHOTS}
    more = sorted(known - set(shots))
    if more:
        words = ", ".join(shots_word(k) for k in more)
        everything = ",".join(map(str, sorted(known)))
        yield f"also measured: {words} (--shots {everything})"
    for comparable in sets:
        counts = comparable.tasks
        if len(counts) > 1:
            words = f"{', '.join(map(str, counts[:-1]))} and {counts[-1]}"
            first = counts[0] if len(counts) == 2 else f"{counts[0]} to {counts[-2]}"
            yield (
                f"these runs were evaluated on {words} tasks: accuracies are over all of a run's, "
                f"differences over the first {first}, which both have"
            )
    for row in (row for comparable in sets for row in comparable.rows if model != "teacher"):
        figures = [f for k in shots if (f := figure_of(row, model, k)) is not None]
        if len(row) > 1 and any(f.seeds == 1 for f in figures):
            yield (
                f"{len(row)} runs of different seeds have the same figures ('{row[0].path.name}' "
                "…): the seed seems to have decided nothing, and they count as one, with its "
                "interval over tasks"
            )
    commits = {run.info.git_commit for run in finished} - {None}
    if len(commits) > 1:
        yield f"these runs were made by {len(commits)} different commits of the project"
    elif len({run.info.git_diff_sha256 for run in finished if run.info.git_commit}) > 1:
        yield (
            "these runs were made by one commit of the project, with different changes that were "
            "not committed (git_diff of each run.json)"
        )
    for comparable in sets:
        machines = {machine_of(run) for row in comparable.rows for run in row}
        if len(machines) > 1:
            yield "latencies were measured on different machines, so there is no front over them"
            break
    for comparable in sets:
        runs = [run for row in comparable.rows for run in row]
        costly = any(run.cost(model, "task_macs") is not None for run in runs)
        if costly and len(headline_shots(runs, model)) > 1:
            yield "costs of a task are of tasks of different shots, so there is no front over them"
            break
