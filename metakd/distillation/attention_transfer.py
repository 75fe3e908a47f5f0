"""`distill=attention_transfer`: the student looks where the teacher looks."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from metakd.distillation.divergences import unit, widened
from metakd.distillation.kd import check_temperature, soft_target_loss
from metakd.distillation.objective import Answer, FeatureShapes, Needs
from metakd.distillation.stage_loss import StageLoss, StagePairs, averaged_to
from metakd.models.network import Prediction

__all__ = ["AttentionTransfer", "attention_loss", "attention_map"]


def attention_map(features: Tensor, size: tuple[int, int]) -> Tensor:
    """Return where a stage is active: the mean square over channels, flattened, of length 1.

    Args:
        features: [..., channels, height, width].
        size: (height, width) that the squares are averaged to.

    Returns:
        [..., size[0] * size[1]].
    """
    energy = widened(features).square().mean(-3, keepdim=True)
    return unit(averaged_to(energy, size).flatten(-3))


def attention_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared difference of two stages' attention maps, a scalar.

    Args:
        student: [..., channels, height, width].
        teacher: [..., channels, height, width], any channels; the larger map is averaged to the
            smaller one's size.
    """
    size = (
        min(student.shape[-2], teacher.shape[-2]),
        min(student.shape[-1], teacher.shape[-1]),
    )
    return F.mse_loss(attention_map(student, size), attention_map(teacher, size))


class AttentionTransfer(StageLoss):
    """Labels, and the attention maps of pairs of stages (Zagoruyko & Komodakis 2017).

    L = ce_weight · L_CE + attention_weight · Σ_pairs mean((Q_s/‖Q_s‖ - Q_t/‖Q_t‖)²)
      + kd_weight · τ² KL(teacher || student)

    Q is the mean square of a stage's activations over its channels. The weight of the published
    experiments on CIFAR is 1000.

    Terms `loss/ce`, `loss/attention`, `loss/kd` (before their weights); one whose weight is 0 is
    neither computed nor logged.

    Args:
        student_size: unused here; part of every objective's constructor.
        teacher_size: likewise.
        teacher_mean: likewise.
        ce_weight: weight of the loss on the labels.
        kd_weight: weight of the soft targets.
        temperature: τ of the soft targets.
        attention_weight: weight of the attention maps.
        pairs: of stages whose maps are matched.
        shapes: of these stages' features; None: not checked.

    Raises:
        UserError: a weight is negative or all are 0, or a stage's features are no maps.
    """

    needs: ClassVar[Needs] = {"logits": ("kd_weight",)}
    stage_weight: ClassVar[str] = "attention_weight"
    attention_weight: float
    kd_weight: float

    def __init__(
        self,
        student_size: int = 0,
        teacher_size: int = 0,
        teacher_mean: Tensor | None = None,
        *,
        ce_weight: float = 1.0,
        kd_weight: float = 0.0,
        temperature: float = 4.0,
        attention_weight: float = 1000.0,
        pairs: StagePairs = StagePairs(),
        shapes: FeatureShapes | None = None,
    ) -> None:
        super().__init__(student_size, teacher_size, teacher_mean)
        self.weigh(
            "attention_transfer", ce_weight, attention_weight=attention_weight, kd_weight=kd_weight
        )
        self.temperature = check_temperature(temperature)
        self.pairs = pairs
        if shapes is not None:
            self.paired(shapes, maps=True)

    def taught(
        self, student: Prediction, targets: Tensor, answer: Answer
    ) -> dict[str, tuple[float, Tensor]]:
        """See `Distillation.taught`."""
        weighted: dict[str, tuple[float, Tensor]] = {}
        if self.attention_weight:
            terms = [attention_loss(s, t) for s, t in self.features_of(student, answer)]
            weighted["loss/attention"] = (self.attention_weight, torch.stack(terms).sum())
        if self.kd_weight:
            kd = soft_target_loss(student.logits, targets, answer, self.temperature)
            weighted["loss/kd"] = (self.kd_weight, kd)
        return weighted
