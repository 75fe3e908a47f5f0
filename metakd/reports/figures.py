"""All figures of a run in one place; each is drawn in a file of its own."""

from __future__ import annotations

from metakd.reports.comparison import accuracy_against_steps, models_compared
from metakd.reports.confusion import confusion_figure
from metakd.reports.curves import StageScale, learning_curves
from metakd.reports.functions import sample_functions
from metakd.reports.game import adversarial_game
from metakd.reports.reliability import Answers, reliability_diagram
from metakd.reports.samples import sample_tasks

__all__ = [
    "Answers",
    "StageScale",
    "accuracy_against_steps",
    "adversarial_game",
    "confusion_figure",
    "learning_curves",
    "models_compared",
    "reliability_diagram",
    "sample_functions",
    "sample_tasks",
]
