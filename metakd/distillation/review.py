"""`distill=review`: deep stages of the student help its shallow ones to follow the teacher."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metakd.distillation.objective import Answer, FeatureShapes
from metakd.distillation.stage_loss import StageLoss, StagePairs, averaged_to
from metakd.errors import UserError
from metakd.models.network import Prediction

__all__ = ["Review", "pyramid_loss"]

_LEVELS = (4, 2, 1)


def pyramid_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared difference of two maps and of their averages, a scalar.

    Over 4x4, 2x2 and 1x1 cells, as far as the map is larger; weights 1, ½, ¼ … over their sum.

    Args:
        student: [..., channels, height, width].
        teacher: of the same shape.
    """
    errors = [F.mse_loss(student, teacher)]
    for level in _LEVELS:
        if level < min(student.shape[-2:]):
            cells = (level, level)
            errors.append(F.mse_loss(averaged_to(student, cells), averaged_to(teacher, cells)))
    weights = [0.5**i for i in range(len(errors))]
    total = torch.stack([w * e for w, e in zip(weights, errors, strict=True)]).sum()
    return total / sum(weights)


class Fusion(nn.Module):
    """A stage's features joined with those of the deeper stages, by learned attention.

    Args:
        inputs: channels of the stage.
        width: channels of what is handed on.
        outputs: channels of the teacher's stage.
        first: this is the deepest stage, with nothing to join.
    """

    def __init__(self, inputs: int, width: int, outputs: int, first: bool) -> None:
        super().__init__()
        self.narrow = nn.Linear(inputs, width, bias=False)
        self.attend = None if first else nn.Linear(2 * width, 2)
        self.widen = nn.Linear(width, outputs)

    def forward(self, features: Tensor, deeper: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the map to hand on, and that to compare with the teacher's.

        Args:
            features: [..., inputs, height, width].
            deeper: [..., width, height', width'] of the deeper stage; None at the deepest.

        Returns:
            [..., width, height, width] and [..., outputs, height, width].
        """
        here = self.narrow(features.movedim(-3, -1))
        if self.attend is not None and deeper is not None:
            flat = deeper.reshape(-1, *deeper.shape[-3:])
            scaled = F.interpolate(flat, size=features.shape[-2:], mode="nearest")
            below = scaled.view(*deeper.shape[:-2], *features.shape[-2:]).movedim(-3, -1)
            gates = torch.sigmoid(self.attend(torch.cat([here, below], dim=-1)))
            here = gates[..., :1] * here + gates[..., 1:] * below
        return here.movedim(-1, -3), self.widen(here).movedim(-1, -3)


class Review(StageLoss):
    """L = ce_weight · L_CE + review_weight · Σ_stages pyramid(F̃_s, F_t).

    F̃_s of a stage is made of the student's features there and of those handed up from its deeper
    stages, joined by learned attention: so the teacher's shallow stages also teach the student's
    deep ones. `pyramid_loss` compares them at several sizes. All that is learned here is trained
    with the student and never part of it.

    Source: Chen et al., "Distilling knowledge via knowledge review" (2021), with 1x1 in place of
    3x3 convolutions and without their batch norm.

    Terms `loss/ce`, `loss/review` (before their weights).

    Args:
        student_size: unused here; part of every objective's constructor.
        teacher_size: likewise.
        teacher_mean: likewise.
        ce_weight: weight of the loss on the labels.
        review_weight: weight of the features.
        width: channels of what one stage hands to the next.
        pairs: of stages, from shallow to deep.
        shapes: of these stages' features.

    Raises:
        UserError: a weight is negative, both are 0, `width` is below 1, or a stage gives no maps.
    """

    stage_weight: ClassVar[str] = "review_weight"
    review_weight: float

    def __init__(
        self,
        student_size: int = 0,
        teacher_size: int = 0,
        teacher_mean: Tensor | None = None,
        *,
        ce_weight: float = 1.0,
        review_weight: float = 1.0,
        width: int = 64,
        pairs: StagePairs = StagePairs(
            ("stage1", "stage2", "stage3"), ("stage1", "stage2", "stage3")
        ),
        shapes: FeatureShapes | None = None,
    ) -> None:
        super().__init__(student_size, teacher_size, teacher_mean)
        self.weigh("review", ce_weight, review_weight=review_weight)
        if width < 1:
            raise UserError(f"distill.options.width={width}: must be 1 or more; try 64")
        self.pairs = pairs
        paired = self.paired(shapes, maps=True)
        self.fusions = nn.ModuleList(
            Fusion(ours[0], width, theirs[0], first=i == len(paired) - 1)
            for i, (ours, theirs) in enumerate(paired)
        )

    def taught(
        self, student: Prediction, targets: Tensor, answer: Answer
    ) -> dict[str, tuple[float, Tensor]]:
        """See `Distillation.taught`."""
        if not self.review_weight:
            return {}
        features = list(self.features_of(student, answer))
        errors, handed = [], None
        for fusion, (ours, theirs) in zip(reversed(self.fusions), reversed(features), strict=True):
            handed, seen = fusion(ours, handed)
            size = [min(a, b) for a, b in zip(seen.shape[-2:], theirs.shape[-2:], strict=True)]
            errors.append(pyramid_loss(averaged_to(seen, size), averaged_to(theirs, size)))
        return {"loss/review": (self.review_weight, torch.stack(errors).sum())}
