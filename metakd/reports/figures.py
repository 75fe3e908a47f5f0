"""All figures of a run in one place; each is drawn in a file of its own."""

from __future__ import annotations

from metakd.reports.comparison import accuracy_against_steps, models_compared
from metakd.reports.curves import learning_curves
from metakd.reports.game import adversarial_game
from metakd.reports.samples import sample_functions, sample_tasks

__all__ = [
    "accuracy_against_steps",
    "adversarial_game",
    "learning_curves",
    "models_compared",
    "sample_functions",
    "sample_tasks",
]
