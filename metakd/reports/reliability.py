"""reliability.png: accuracy by confidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from metakd.reports.divergence import are_finite
from metakd.reports.drawing import COLORS, GRID, INK, NAMES, canvas, drawing, save, tidy
from metakd.reports.fidelity import expected_calibration_error

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["BINS", "Answers", "ConfidenceBins", "bins_of", "reliability_diagram"]

BINS = 15
"""Bins of `expected_calibration_error`, so that the figure shows what its number sums up."""


@dataclass(frozen=True)
class Answers:
    """A model's predictions.

    Attributes:
        logits: [tasks, queries, ways].
        targets: [tasks, queries] int64.
        temperature: fitted on meta-validation; None: unknown.
    """

    logits: Tensor
    targets: Tensor
    temperature: float | None = None


@dataclass(frozen=True)
class ConfidenceBins:
    """Answers by confidence, in equal intervals (low, high] from 0 to 1.

    Attributes:
        counts: [bins] int64, answers in each.
        confidence: [bins] float64, their mean confidence; NaN in an empty bin.
        accuracy: [bins] float64, how many of them are right; NaN in an empty bin.
    """

    counts: Tensor
    confidence: Tensor
    accuracy: Tensor


def bins_of(logits: Tensor, targets: Tensor, bins: int = BINS) -> ConfidenceBins:
    """Put answers into bins of their confidence, the largest probability.

    Args:
        logits: [..., classes]; rows that are not finite are left out.
        targets: [...] int64.
        bins: number of intervals.
    """
    finite = are_finite(logits)
    confidence, predicted = logits[finite].double().softmax(dim=-1).max(dim=-1)
    right = (predicted == targets[finite]).double()
    bin_of = (confidence * bins).ceil().long().clamp(1, bins) - 1
    counts = torch.bincount(bin_of, minlength=bins)

    def mean(values: Tensor) -> Tensor:
        return torch.zeros(bins, dtype=torch.float64).index_add_(0, bin_of, values) / counts

    return ConfidenceBins(counts, mean(confidence), mean(right))


@drawing
def reliability_diagram(models: Mapping[str, Answers], out: Path, title: str = "") -> Path | None:
    """Draw accuracy over confidence for each model, with the numbers of answers below.

    Bars are the answers as they were counted; where a temperature is known, a line shows the same
    answers after it.

    Args:
        models: by name (`student`, `student_alone`, `teacher`), in the order of the panels.
        out: the PNG to write.
        title: above all panels.

    Returns:
        `out`, or None without models.
    """
    if not models:
        return None
    figure = canvas(3.35 * len(models) + 0.4, 4.6)
    grid = figure.subplots(
        2, len(models), squeeze=False, sharex=True, sharey="row", height_ratios=(3, 1)
    )
    for (above, below), (model, answers) in zip(grid.T, models.items(), strict=True):
        _draw_bins(above, below, model, answers)
    grid[0][0].set_ylabel("right (%)")
    grid[1][0].set_ylabel("answers")
    if title:
        figure.suptitle(title, fontsize=11, color=INK, fontweight="bold", parse_math=False)
    return save(figure, out)


def _draw_bins(above: Axes, below: Axes, model: str, answers: Answers) -> None:
    found = bins_of(answers.logits, answers.targets)
    color = COLORS.get(model, INK)
    width = 100.0 / BINS
    middles = [(i + 0.5) * width for i in range(BINS)]
    above.plot([0, 100], [0, 100], color="#9a9a9a", lw=1.1, ls="--", zorder=3)
    above.bar(middles, [100 * a for a in found.accuracy.tolist()], 0.9 * width, color=color,
              alpha=0.5, label=_label("as counted", answers.logits, answers.targets))  # fmt: skip
    below.bar(middles, found.counts.tolist(), 0.9 * width, color=color, alpha=0.5)
    if answers.temperature is not None:
        cooled = answers.logits / answers.temperature
        after = bins_of(cooled, answers.targets)
        known = (after.counts > 0).nonzero().flatten().tolist()
        label = _label(f"temperature {answers.temperature:.2f}", cooled, answers.targets)
        above.plot([100 * float(after.confidence[i]) for i in known],
                   [100 * float(after.accuracy[i]) for i in known], "o-", color=color, ms=4,
                   lw=1.5, mfc="white", label=label, zorder=4)  # fmt: skip
        below.stairs(after.counts.tolist(), [i * width for i in range(BINS + 1)], color=color,
                     lw=1.3)  # fmt: skip
    lost = int((~are_finite(answers.logits)).sum())
    name = NAMES.get(model, model) + (f"\n{lost} answers are not finite" if lost else "")
    tidy(above, title=name, xlim=(0, 100), ylim=(0, 122))
    above.set_yticks(range(0, 101, 20))
    above.legend(loc="upper left", fontsize=8, edgecolor="none", labelcolor=INK, borderpad=0.2)
    tidy(below, xlabel="confidence (%)")
    below.grid(axis="y", color=GRID)


def _label(what: str, logits: Tensor, targets: Tensor) -> str:
    """Return e.g. ``as counted: ECE 4.1 %``; there is none where an answer is not finite."""
    error = expected_calibration_error(logits, targets, BINS)
    return f"{what}: ECE {100 * error:.1f} %" if error == error else f"{what}: no ECE"
