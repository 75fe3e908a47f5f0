"""Sentences on a comparison."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from metakd.comparing.compare import Comparable, Comparison
from metakd.comparing.figures import diverged_of, figure_of
from metakd.comparing.frame import WHOLE
from metakd.comparing.pairing import Row, RowPair
from metakd.reports.doubts import MARK, WARNED, share
from metakd.reports.summary import MODELS
from metakd.runs.records import NO_SHOTS, shots_word

__all__ = ["RESOLVED", "outside_pretraining", "probability", "sentences", "title"]

RESOLVED = 0.05
"""Threshold of significance for corrected p."""

Label = Callable[[Row], str]


MOST_WARNINGS = 8
"""Most warnings that are printed; of the rest only the number."""


def title(comparable: Comparable) -> str:
    """Return a table's title: ``5-way accuracy (%), 600 tasks of glyphs, …``."""
    frame = comparable.frame
    if frame is None:
        return "without figures of that model"
    if frame.protocol == WHOLE:
        which = {"test": "test", "validate": "validation"}.get(str(frame.part), "")
        of = f" of {frame.dataset}" if frame.dataset else ""
        images = f"{frame.tasks} {which} examples{of}"
        return f"accuracy (%) of {frame.ways} classes, {images}, ± 95 % interval"
    ways = f"{frame.ways}-way " if frame.ways is not None and frame.measure == "accuracy" else ""
    what = "accuracy (%)" if frame.measure == "accuracy" else "mean squared error"
    part = {"test": "meta-test", "validate": "meta-validation"}.get(str(frame.part), "")
    many = comparable.tasks
    number = f"{many[0]} to {many[-1]}" if len(many) > 1 else frame.tasks
    tasks = " ".join(str(w) for w in (number, part, "tasks") if w)
    of = f" of {frame.dataset}" if frame.dataset else ""
    seed = "" if frame.seed is None else f", evaluation seed {frame.seed}"
    return f"{ways}{what}, {tasks}{of}{seed}, ± 95 % interval"


def sentences(
    comparison: Comparison, label: Label, verdicts: Sequence[str] | None = None
) -> Iterator[str]:
    """Yield sentences: first the verdicts, then how to read the tables.

    Args:
        comparison: all that is known.
        label: what a row is called.
        verdicts: sentences in place of the default ones.
    """
    yield from verdicts or ()
    for comparable in comparison.comparable if verdicts is None else ():
        for shots in comparable.shots:
            yield from _verdict(comparison, comparable, shots, label)
    yield from _reading(comparison)
    yield from _diverged(comparison, label)
    for comparable in comparison.comparable:
        yield from outside_pretraining(comparable.rows, label)
    yield from _warned(comparison, label)
    yield from comparison.notes


def outside_pretraining(rows: Sequence[Row], label: Label) -> Iterator[str]:
    """Yield a sentence where some rows alone began with weights that others have trained.

    Args:
        rows: that were evaluated on the same tasks.
        label: what a row is called.
    """
    theirs = [row for row in rows if any(run.outside for run in row)]
    if not theirs or len(theirs) == len(rows):
        return
    weights = ", ".join(dict.fromkeys(one for row in theirs for run in row for one in run.outside))
    yield (
        f"with outside pre-training: {', '.join(map(label, theirs))} ({weights}); the other rows "
        "are without, so that a difference is also one of what these weights have seen."
    )


def probability(p: float) -> str:
    """Return e.g. ``p = 0.013`` or ``p < 0.0001``."""
    if p < 1e-4:
        return "p < 0.0001"
    return f"p = {p:.4f}" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def _verdict(
    comparison: Comparison, comparable: Comparable, shots: int, label: Label
) -> Iterator[str]:
    """Yield a sentence on the best row and the baseline, or else the next best row."""
    model = comparison.model
    figures = {row: figure_of(row, model, shots) for row in comparable.rows}
    goodness = {row: figure.goodness for row, figure in figures.items() if figure is not None}
    ranked = sorted(goodness, key=lambda row: -goodness[row])
    if len(ranked) < 2:
        return
    best, other = ranked[0], ranked[1]
    if comparison.baseline is not None:
        if comparison.baseline not in goodness:
            return
        if best is not comparison.baseline:
            other = comparison.baseline
    pair = comparison.pair(best, other, shots)
    if pair is None:
        return
    if pair.row is other:
        best, other = other, best
    yield _sentence(pair, comparison, label, shots)


def _sentence(pair: RowPair, comparison: Comparison, label: Label, shots: int) -> str:
    accuracy = pair.pairs[0].measure == "accuracy"
    scale, unit = (100.0, " points") if accuracy else (1.0, "")
    digits = 2 if accuracy else 4
    first, second = pair.row, pair.baseline
    if pair.better < 0:
        first, second = second, first
    half = scale * pair.corrected_half
    size = f"{scale * abs(pair.difference):.{digits}f} ± {half:.{digits}f}{unit}"
    what = f"{comparison.model.replace('_', ' ')}, {shots_word(shots)}"
    how = probability(pair.p_adjusted)
    if len(comparison.pairs) > 1:
        how += f"; interval and p corrected for {len(comparison.pairs)} comparisons"
    tasks = f"{pair.pairs[0].tasks} tasks"
    if shots == NO_SHOTS:
        part = first[0].settings.get("evaluate.part")
        tasks = f"{pair.pairs[0].tasks} {'validation' if part == 'validate' else 'test'} examples"
    if pair.is_over_seeds:
        on = f"over {len(pair.pairs)} seeds, each on the same {tasks}"
    else:
        on = f"on the same {tasks}"
    if pair.p_adjusted >= RESOLVED:
        return (
            f"{what}: no difference between {label(first)} and {label(second)} is resolved "
            f"({size} {on}; {how})."
        )
    than = "is better than" if accuracy else "has a smaller error than"
    better = f"{what}: {label(first)} {than} {label(second)}, by {size} {on} ({how})."
    if not pair.is_over_seeds:
        better += " This holds for these two trained models; only more seeds tell of the settings."
    return better


def _reading(comparison: Comparison) -> Iterator[str]:
    rows = [row for comparable in comparison.comparable for row in comparable.rows]
    several = [row for row in rows if len(row) > 1]
    if several:
        alone = "" if len(several) == len(rows) else "; of one run it is over tasks"
        yield f"± of several seeds: t interval over the seeds{alone}."
    if comparison.baseline is not None and comparison.pairs:
        n = len(comparison.pairs)
        yield (
            "difference: to the baseline, on the same tasks and seed by seed; t interval"
            + (f"; interval and p corrected for {n} comparisons (Holm)." if n > 1 else ".")
        )
    if any(any(on) for comparable in comparison.comparable for on in comparable.fronts.values()):
        yield "*: on the Pareto front: no other row of the table is better at no higher cost."


def _diverged(comparison: Comparison, label: Label) -> Iterator[str]:
    """Yield what the mark behind a figure means, and how many tasks of each row it concerns."""
    found = [
        (row, comparable.frame, f"{MODELS[model]} {shots_word(k)}", diverged_of(row, model, k))
        for comparable in comparison.comparable
        for row in comparable.rows
        for model in MODELS
        for k in comparable.shots
    ]
    found = [one for one in found if one[3]]
    if not found:
        return
    said = ", ".join(f"{label(row)} {share(part)} ({what})" for row, _, what, part in found[:6])
    more = f" and {len(found) - 6} more" if len(found) > 6 else ""
    measures = {frame.measure for _, frame, _, _ in found if frame is not None}
    ways = {"accuracy": "they count as wrong answers", "mse": "there is no mean of such errors"}
    how = ", ".join(words for measure, words in ways.items() if measure in measures)
    yield (
        f"{MARK}: some tasks diverged, so that predictions are no numbers ({how}): {said}{more}; "
        "see algorithm.inner_lr and algorithm.inner_steps_test."
    )


def _warned(comparison: Comparison, label: Label) -> Iterator[str]:
    """Yield the warnings that runs recorded, each with the rows whose name is marked."""
    found: dict[str, dict[Row, None]] = {}
    for comparable in comparison.comparable:
        for row in comparable.rows:
            for line in (line for run in row for line in run.warnings):
                found.setdefault(line, {})[row] = None
    for line, rows in list(found.items())[:MOST_WARNINGS]:
        yield f"{WARNED} {', '.join(map(label, rows))}: {line}"
    if len(found) > MOST_WARNINGS:
        rest = len(found) - MOST_WARNINGS
        yield f"{WARNED} and {rest} more; `warnings` in each run's run.json has them all"
