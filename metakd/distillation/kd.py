"""`distill=kd`: cross-entropy plus soft targets, additively mixed (Hinton et al. 2015)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from metakd.distillation.distillation import Distillation, check_weight
from metakd.distillation.divergences import kd_loss, standardised, widened
from metakd.distillation.objective import Answer, Needs
from metakd.errors import UserError
from metakd.models.network import Prediction

__all__ = ["KD", "check_temperature", "soft_target_loss"]


def soft_target_loss(
    student_outputs: Tensor,
    targets: Tensor,
    answer: Answer,
    temperature: float,
    standardise: bool = False,
) -> Tensor:
    """Return the mean loss of the student's outputs against the teacher's.

    temperature² · KL for classes (integer `targets`), of standardised logits if so wished; mean
    squared error for regression (float `targets`), where temperature and standardisation mean
    nothing.

    Raises:
        ValueError: the answer has no logits, or not the student's classes.
    """
    if answer.logits is None:
        raise ValueError("soft targets need the teacher's logits; its answer has none")
    if not targets.is_floating_point():
        theirs, ours = answer.logits, student_outputs
        if standardise:
            theirs, ours = standardised(theirs), standardised(ours)
        return kd_loss(theirs, ours, temperature)
    if answer.logits.shape != student_outputs.shape:
        raise ValueError(
            f"teacher's outputs {tuple(answer.logits.shape)} and student's "
            f"{tuple(student_outputs.shape)} differ in shape"
        )
    return F.mse_loss(widened(student_outputs), widened(answer.logits))


class KD(Distillation):
    """L = ce_weight · L_CE + kd_weight · τ² KL(teacher || student).

    Terms `loss/ce` and `loss/kd` (before their weights); one whose weight is 0 is neither
    computed nor logged. On regression tasks the squared error to the teacher's outputs takes the
    place of the KL. Computes in float32, also inside an autocast region.

    Args:
        student_size: unused here; part of every objective's constructor.
        teacher_size: likewise.
        teacher_mean: likewise.
        ce_weight: weight of the loss on the labels.
        kd_weight: λ.
        temperature: τ.
        standardise: standardise both sides' logits first; see `standardised`.

    Raises:
        UserError: a weight is negative, both are 0, or the temperature is not positive.
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
    ) -> None:
        super().__init__(student_size, teacher_size, teacher_mean)
        self.ce_weight = check_weight("ce_weight", ce_weight)
        self.kd_weight = check_weight("kd_weight", kd_weight)
        self.temperature = check_temperature(temperature)
        self.standardise = standardise
        if not ce_weight and not kd_weight:
            raise UserError(
                "distill.ce_weight and distill.kd_weight are both 0, so nothing would be learnt; "
                "set one above 0"
            )

    def taught(
        self, student: Prediction, targets: Tensor, answer: Answer
    ) -> dict[str, tuple[float, Tensor]]:
        """See `Distillation.taught`."""
        if not self.kd_weight:
            return {}
        kd = soft_target_loss(student.logits, targets, answer, self.temperature, self.standardise)
        return {"loss/kd": (self.kd_weight, kd)}

    def extra_repr(self) -> str:
        """Return the weights and the temperature, for `print`."""
        return f"ce={self.ce_weight:g}, kd={self.kd_weight:g}, temperature={self.temperature:g}"


def check_temperature(value: float) -> float:
    """Return `value` if it is a positive number.

    Raises:
        UserError: it is not.
    """
    if not 0.0 < value < float("inf"):
        raise UserError(f"distill.temperature={value:g}: must be above 0 (4 is usual)")
    return value
