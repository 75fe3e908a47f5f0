"""`distill=ttm`: only the teacher is softened (Zheng & Yang 2024)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from metakd.distillation.distillation import Distillation, logits_of
from metakd.distillation.divergences import widened
from metakd.distillation.kd import check_temperature
from metakd.distillation.objective import Answer, Needs
from metakd.models.network import Prediction

__all__ = ["TTM", "transformed_matching"]


def transformed_matching(
    teacher_logits: Tensor, student_logits: Tensor, exponent: float, weighted: bool = True
) -> Tensor:
    """Return the divergence of the student from its teacher's transformed prediction, [...].

    u · KL(p^γ / Σ p^γ || q), p and q the two predictions at temperature 1. u is the power sum
    Σ_c p_c^γ, larger the smoother p is (WTTM), or 1 (TTM).

    Args:
        teacher_logits: [..., classes].
        student_logits: [..., classes].
        exponent: γ, one over the teacher's temperature.
        weighted: take the power sum for u.
    """
    powers = exponent * torch.log_softmax(widened(teacher_logits), dim=-1)
    teacher = torch.log_softmax(powers, dim=-1)
    student = torch.log_softmax(widened(student_logits), dim=-1)
    divergence = (teacher.exp() * (teacher - student)).sum(-1)
    return powers.exp().sum(-1) * divergence if weighted else divergence


class TTM(Distillation):
    """L = ce_weight · L_CE + ttm_weight · mean(u · KL(p^{1/τ} / Σ p^{1/τ} || q)).

    Only the teacher is softened; the student answers at temperature 1, as it does when it is used.
    That adds an entropy of the student to soft targets, which regularises it. Classes only.

    Source: Zheng & Yang, "Knowledge distillation based on transformed teacher matching" (2024).

    Terms `loss/ce`, `loss/ttm` (before their weights).

    Args:
        student_size: unused here; part of every objective's constructor.
        teacher_size: likewise.
        teacher_mean: likewise.
        ce_weight: weight of the loss on the labels.
        temperature: τ of the teacher, 1/γ.
        ttm_weight: weight of the divergence; published for τ = 10: 45 unweighted.
        weighted: u is the power sum of the teacher's prediction (WTTM); else 1 (TTM).

    Raises:
        UserError: a weight is negative, both are 0, or the temperature is not positive.
    """

    needs: ClassVar[Needs] = {"logits": ("ttm_weight",)}
    ttm_weight: float

    def __init__(
        self,
        student_size: int = 0,
        teacher_size: int = 0,
        teacher_mean: Tensor | None = None,
        *,
        ce_weight: float = 1.0,
        temperature: float = 10.0,
        ttm_weight: float = 4.0,
        weighted: bool = True,
    ) -> None:
        super().__init__(student_size, teacher_size, teacher_mean)
        self.weigh("ttm", ce_weight, ttm_weight=ttm_weight)
        self.temperature = check_temperature(temperature)
        self.weighted = weighted

    def taught(
        self, student: Prediction, targets: Tensor, answer: Answer
    ) -> dict[str, tuple[float, Tensor]]:
        """See `Distillation.taught`."""
        if not self.ttm_weight:
            return {}
        theirs = logits_of(answer, student, "ttm")
        each = transformed_matching(theirs, student.logits, 1.0 / self.temperature, self.weighted)
        return {"loss/ttm": (self.ttm_weight, each.mean())}
