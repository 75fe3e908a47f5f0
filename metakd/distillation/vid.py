"""`distill=vid`: the student's features predict the teacher's (Ahn et al. 2019)."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metakd.distillation.objective import Answer, FeatureShapes
from metakd.distillation.stage_loss import StageLoss, StagePairs, channels_of, same_size
from metakd.models.network import Prediction

__all__ = ["VID", "GaussianPredictor"]

_FIRST_VARIANCE = 5.0
_SMALLEST_VARIANCE = 1e-5


class GaussianPredictor(nn.Module):
    """A normal distribution of the teacher's features, given the student's, at each position.

    The mean is a network of three linear maps of the channels with ReLUs between, the variance a
    parameter of each of the teacher's channels.

    Args:
        inputs: channels of the student's features.
        outputs: channels of the teacher's.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.mean = nn.Sequential(
            nn.Linear(inputs, outputs, bias=False),
            nn.ReLU(),
            nn.Linear(outputs, outputs, bias=False),
            nn.ReLU(),
            nn.Linear(outputs, outputs, bias=False),
        )
        first = math.log(math.expm1(_FIRST_VARIANCE - _SMALLEST_VARIANCE))
        self.scale = nn.Parameter(torch.full((outputs,), first))

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the mean negative log-likelihood less ½ log 2π, a scalar.

        Args:
            student: features [..., inputs].
            teacher: features [..., outputs].
        """
        variance = F.softplus(self.scale) + _SMALLEST_VARIANCE
        squares = (self.mean(student) - teacher).square()
        return 0.5 * (squares / variance + variance.log()).mean()


class VID(StageLoss):
    """L = ce_weight · L_CE + vid_weight · Σ_pairs mean(½ (F_t - μ(F_s))² / σ² + ½ log σ²).

    The mutual information of the two sides' features is at least this likelihood: μ is a learned
    network and σ² a learned variance of each channel, trained with the student and never part of
    it. May be negative. The larger of two maps is averaged to the smaller one's size.

    Source: Ahn et al., "Variational information distillation for knowledge transfer" (2019),
    weight 1.

    Terms `loss/ce`, `loss/vid` (before their weights).

    Args:
        student_size: unused here; part of every objective's constructor.
        teacher_size: likewise.
        teacher_mean: likewise.
        ce_weight: weight of the loss on the labels.
        vid_weight: weight of the likelihood.
        pairs: of stages.
        shapes: of these stages' features.

    Raises:
        UserError: a weight is negative, both are 0, or a pair's features are of two kinds.
    """

    stage_weight: ClassVar[str] = "vid_weight"
    vid_weight: float

    def __init__(
        self,
        student_size: int = 0,
        teacher_size: int = 0,
        teacher_mean: Tensor | None = None,
        *,
        ce_weight: float = 1.0,
        vid_weight: float = 1.0,
        pairs: StagePairs = StagePairs(),
        shapes: FeatureShapes | None = None,
    ) -> None:
        super().__init__(student_size, teacher_size, teacher_mean)
        self.weigh("vid", ce_weight, vid_weight=vid_weight)
        self.pairs = pairs
        paired = self.paired(shapes)
        self.predictors = nn.ModuleList(
            GaussianPredictor(channels_of(ours), channels_of(theirs)) for ours, theirs in paired
        )
        self._dimensions = [len(ours) for ours, _ in paired]

    def taught(
        self, student: Prediction, targets: Tensor, answer: Answer
    ) -> dict[str, tuple[float, Tensor]]:
        """See `Distillation.taught`."""
        if not self.vid_weight:
            return {}
        features = self.features_of(student, answer)
        terms = [
            predictor(*same_size(*both, n))
            for predictor, n, both in zip(self.predictors, self._dimensions, features, strict=True)
        ]
        return {"loss/vid": (self.vid_weight, torch.stack(terms).sum())}
