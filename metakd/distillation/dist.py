"""`distill=dist`: correlations of predictions in place of their divergence (Huang et al. 2022)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from metakd.distillation.distillation import Distillation, logits_of
from metakd.distillation.divergences import widened
from metakd.distillation.kd import check_temperature
from metakd.distillation.objective import Answer, Needs
from metakd.models.network import Prediction

__all__ = ["DIST", "pearson_distance"]

_SMALLEST_VARIANCE = 1e-10


def pearson_distance(a: Tensor, b: Tensor, dim: int) -> Tensor:
    """Return 1 - Pearson's correlation along `dim`, which is reduced.

    In [0, 2]; 1 (no correlation) where one side does not vary.

    Args:
        a: [...].
        b: of the same shape.
        dim: along which the two are compared.
    """
    a = a - a.mean(dim, keepdim=True)
    b = b - b.mean(dim, keepdim=True)
    lengths = (a.square().sum(dim) + _SMALLEST_VARIANCE) * (
        b.square().sum(dim) + _SMALLEST_VARIANCE
    )
    return 1.0 - (a * b).sum(dim) / lengths.sqrt()


class DIST(Distillation):
    """Labels, and the correlation of student's and teacher's softened predictions.

    L = ce_weight · L_CE + inter_weight · τ² mean_examples(1 - ρ over classes)
      + intra_weight · τ² mean_classes(1 - ρ over the batch's examples)

    A student that is less sure than its teacher is not forced to its confidence: ρ is Pearson's
    correlation, which neither scale nor shift of either side changes. The second term compares
    the examples of a batch (of each task). Classes only.

    Source: Huang et al., "Knowledge distillation from a stronger teacher" (2022); on CIFAR-100 with
    both weights 2 and τ = 4.

    Terms `loss/ce`, `loss/inter`, `loss/intra` (before their weights).

    Args:
        student_size: unused here; part of every objective's constructor.
        teacher_size: likewise.
        teacher_mean: likewise.
        ce_weight: weight of the loss on the labels.
        temperature: τ.
        inter_weight: weight of the correlation over classes.
        intra_weight: weight of the correlation over examples.

    Raises:
        UserError: a weight is negative, all are 0, or the temperature is not positive.
    """

    needs: ClassVar[Needs] = {"logits": ("inter_weight", "intra_weight")}
    inter_weight: float
    intra_weight: float

    def __init__(
        self,
        student_size: int = 0,
        teacher_size: int = 0,
        teacher_mean: Tensor | None = None,
        *,
        ce_weight: float = 1.0,
        temperature: float = 4.0,
        inter_weight: float = 2.0,
        intra_weight: float = 2.0,
    ) -> None:
        super().__init__(student_size, teacher_size, teacher_mean)
        self.weigh("dist", ce_weight, inter_weight=inter_weight, intra_weight=intra_weight)
        self.temperature = check_temperature(temperature)

    @property
    def mean_over_examples(self) -> bool:
        """See `Objective`: the second term compares the examples of a batch."""
        return not self.intra_weight

    def taught(
        self, student: Prediction, targets: Tensor, answer: Answer
    ) -> dict[str, tuple[float, Tensor]]:
        """See `Distillation.taught`."""
        if not self.inter_weight + self.intra_weight:
            return {}
        theirs = torch.softmax(logits_of(answer, student, "dist") / self.temperature, dim=-1)
        ours = torch.softmax(widened(student.logits) / self.temperature, dim=-1)
        return {
            name: (weight, self.temperature**2 * pearson_distance(ours, theirs, dim).mean())
            for name, weight, dim in (
                ("loss/inter", self.inter_weight, -1),
                ("loss/intra", self.intra_weight, -2),
            )
            if weight
        }
