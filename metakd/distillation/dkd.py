"""`distill=dkd`: soft targets, decoupled into the target class and the other ones."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from metakd.distillation.distillation import Distillation, check_weight
from metakd.distillation.divergences import kl, standardised, widened
from metakd.distillation.kd import check_temperature
from metakd.distillation.objective import Answer, Needs
from metakd.errors import UserError
from metakd.models.network import Prediction

__all__ = ["DKD", "decoupled"]


def decoupled(
    teacher_logits: Tensor, student_logits: Tensor, targets: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Return the two parts of KL(teacher || student), per example.

    KL = TCKD + (1 - p_t,target) · NCKD: the divergence of "target or not", and that of the
    predictions among the other classes alone.

    Args:
        teacher_logits: [..., classes], 2 classes or more.
        student_logits: [..., classes], the same classes in the same order.
        targets: [...] int64.
        temperature: softens both predictions.

    Returns:
        TCKD and NCKD, [...] each.
    """
    classes = torch.arange(teacher_logits.shape[-1], device=targets.device)
    target = targets.unsqueeze(-1) == classes
    teacher = torch.log_softmax(widened(teacher_logits) / temperature, dim=-1)
    student = torch.log_softmax(widened(student_logits) / temperature, dim=-1)

    def target_or_not(log: Tensor) -> Tensor:
        own = log.masked_fill(~target, -torch.inf).logsumexp(-1)
        return torch.stack([own, log.masked_fill(target, -torch.inf).logsumexp(-1)], dim=-1)

    # A logarithm of probabilities is as good as logits.
    tckd = kl(target_or_not(teacher), target_or_not(student))
    theirs = torch.log_softmax(teacher.masked_fill(target, -torch.inf), dim=-1)
    ours = torch.log_softmax(student.masked_fill(target, -torch.inf), dim=-1)
    difference = (theirs.masked_fill(target, 0.0) - ours.masked_fill(target, 0.0)) * theirs.exp()
    return tckd, difference.sum(-1)


class DKD(Distillation):
    """L = ce_weight · L_CE + kd_weight · τ² (α TCKD + β NCKD) (Zhao et al. 2022).

    With α = 1 and β the teacher's probability of the other classes it would be `distill=kd`; a β
    of its own lets the student learn from them where the teacher is sure of itself, too.

    Terms `loss/ce`, `loss/tckd`, `loss/nckd` (τ² times the mean, before weights). Classes only.

    Args:
        student_size: unused here; part of every objective's constructor.
        teacher_size: likewise.
        teacher_mean: likewise.
        ce_weight: weight of the loss on the labels.
        kd_weight: weight of both parts together.
        temperature: τ.
        tckd_weight: α.
        standardise: as in `KD`.
        nckd_weight: β; published for CIFAR-100: 2 to 8.

    Raises:
        UserError: a weight is negative, all are 0, or the temperature is not positive.
    """

    needs: ClassVar[Needs] = {"logits": ("kd_weight",)}

    def __init__(
        self,
        student_size: int = 0,
        teacher_size: int = 0,
        teacher_mean: Tensor | None = None,
        *,
        ce_weight: float = 1.0,
        kd_weight: float = 1.0,
        temperature: float = 4.0,
        standardise: bool = False,
        tckd_weight: float = 1.0,
        nckd_weight: float = 8.0,
    ) -> None:
        super().__init__(student_size, teacher_size, teacher_mean)
        self.ce_weight = check_weight("ce_weight", ce_weight)
        self.kd_weight = check_weight("kd_weight", kd_weight)
        self.temperature = check_temperature(temperature)
        self.standardise = standardise
        self.tckd_weight = check_weight("options.tckd_weight", tckd_weight)
        self.nckd_weight = check_weight("options.nckd_weight", nckd_weight)
        if not ce_weight + kd_weight * (tckd_weight + nckd_weight):
            raise UserError(
                "all weights of distill=dkd are 0, so nothing would be learnt; set distill."
                "ce_weight, or distill.kd_weight and options.nckd_weight, above 0"
            )

    def weight(self, term: str) -> float | None:
        """See `Objective.weight`; `kd_weight` multiplies both terms' own."""
        found = super().weight(term)
        return self.kd_weight * found if found and term in ("loss/tckd", "loss/nckd") else found

    def weights(self) -> dict[str, float]:
        """See `Objective.weights`."""
        found = super().weights()
        parts = {n: self.kd_weight * found[n] for n in ("loss/tckd", "loss/nckd") if n in found}
        return found | parts if "loss/kd" in found else {"loss/ce": self.ce_weight}

    def taught(
        self, student: Prediction, targets: Tensor, answer: Answer
    ) -> dict[str, tuple[float, Tensor]]:
        """See `Distillation.taught`.

        Raises:
            ValueError: the answer has no logits, or the targets are no classes.
        """
        if targets.is_floating_point():
            raise ValueError("distill=dkd knows target classes; these targets are numbers")
        if not self.kd_weight:
            return {}
        if answer.logits is None:
            raise ValueError("soft targets need the teacher's logits; its answer has none")
        theirs, ours = answer.logits, student.logits
        if self.standardise:
            theirs, ours = standardised(theirs), standardised(ours)
        parts = decoupled(theirs, ours, targets, self.temperature)
        weights = {
            f"loss/{name}": self.kd_weight * weight
            for name, weight in (("tckd", self.tckd_weight), ("nckd", self.nckd_weight))
        }
        return {
            name: (weight, self.temperature**2 * part.mean())
            for (name, weight), part in zip(weights.items(), parts, strict=True)
            if weight
        }
