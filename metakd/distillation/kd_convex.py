"""`distill=kd_convex`: cross-entropy and soft targets in a convex mixture (Hinton et al. 2015)."""

from __future__ import annotations

from torch import Tensor

from metakd.distillation.distillation import check_weight
from metakd.distillation.kd import KD

__all__ = ["KDConvex"]


class KDConvex(KD):
    """L = α · τ² KL(teacher || student) + (1 - α) · L_CE.

    The additive form with the two weights bound to a sum of 1; α = 1 learns from the teacher
    alone, α = 0 from the labels alone.

    Args:
        student_size: unused here; part of every objective's constructor.
        teacher_size: likewise.
        teacher_mean: likewise.
        kd_weight: α.
        temperature: τ.
        standardise: as in `KD`.

    Raises:
        UserError: α is outside [0, 1] or the temperature is not positive.
    """

    def __init__(
        self,
        student_size: int = 0,
        teacher_size: int = 0,
        teacher_mean: Tensor | None = None,
        *,
        kd_weight: float = 0.5,
        temperature: float = 4.0,
        standardise: bool = False,
    ) -> None:
        alpha = check_weight("kd_weight", kd_weight, most=1.0)
        super().__init__(
            student_size,
            teacher_size,
            teacher_mean,
            ce_weight=1.0 - alpha,
            kd_weight=alpha,
            temperature=temperature,
            standardise=standardise,
        )

    def scheduled_values(self) -> dict[str, float]:
        """See `Distillation.scheduled_values`: the weight of the labels follows α."""
        found = super().scheduled_values()
        del found["ce_weight"]
        return found

    def set_value(self, name: str, value: float) -> None:
        """See `Distillation.set_value`."""
        if name == "kd_weight":
            self.ce_weight = 1.0 - check_weight("schedules.kd_weight", value, most=1.0)
        super().set_value(name, value)
