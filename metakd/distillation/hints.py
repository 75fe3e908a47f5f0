"""`distill=hints`: the student's features, linearly mapped, follow the teacher's (FitNets)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metakd.distillation.objective import Answer, FeatureShapes
from metakd.distillation.stage_loss import StageLoss, StagePairs, channels_of, same_size
from metakd.models.network import Prediction

__all__ = ["Hints"]


class Hints(StageLoss):
    """L = ce_weight · L_CE + hints_weight · Σ_pairs mean((A F_s - F_t)²).

    A is a learned affine map of a stage's channels, alike at all positions (a 1x1 convolution),
    trained with the student and never part of it; the larger of two maps is averaged to the
    smaller one's size. Needs no classes.

    Source: Romero et al., "FitNets: hints for thin deep nets" (2015), in one phase with the
    labels; the weight 100 and the second block are those of the comparison in Tian et al. (2020).

    Terms `loss/ce`, `loss/hints` (before their weights).

    Args:
        student_size: unused here; part of every objective's constructor.
        teacher_size: likewise.
        teacher_mean: likewise.
        ce_weight: weight of the loss on the labels.
        hints_weight: weight of the features.
        pairs: of stages.
        shapes: of these stages' features.

    Raises:
        UserError: a weight is negative, both are 0, or a pair's features are of two kinds.
    """

    stage_weight: ClassVar[str] = "hints_weight"
    hints_weight: float

    def __init__(
        self,
        student_size: int = 0,
        teacher_size: int = 0,
        teacher_mean: Tensor | None = None,
        *,
        ce_weight: float = 1.0,
        hints_weight: float = 100.0,
        pairs: StagePairs = StagePairs(("stage2",), ("stage2",)),
        shapes: FeatureShapes | None = None,
    ) -> None:
        super().__init__(student_size, teacher_size, teacher_mean)
        self.weigh("hints", ce_weight, hints_weight=hints_weight)
        self.pairs = pairs
        paired = self.paired(shapes)
        self.connectors = nn.ModuleList(
            nn.Linear(channels_of(ours), channels_of(theirs)) for ours, theirs in paired
        )
        self._dimensions = [len(ours) for ours, _ in paired]

    def taught(
        self, student: Prediction, targets: Tensor, answer: Answer
    ) -> dict[str, tuple[float, Tensor]]:
        """See `Distillation.taught`."""
        if not self.hints_weight:
            return {}
        errors = []
        features = self.features_of(student, answer)
        for connector, n, both in zip(self.connectors, self._dimensions, features, strict=True):
            ours, theirs = same_size(*both, n)
            errors.append(F.mse_loss(connector(ours), theirs))
        return {"loss/hints": (self.hints_weight, torch.stack(errors).sum())}
