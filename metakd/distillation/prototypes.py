"""`distill=prototypes`: in episodes, queries and classes lie as they do for the teacher."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from metakd.distillation.distillation import Distillation, embeddings_of
from metakd.distillation.divergences import unit, widened
from metakd.distillation.objective import Answer, Needs
from metakd.errors import UserError
from metakd.models.network import Prediction

__all__ = ["PrototypeMatch"]


class PrototypeMatch(Distillation):
    """Labels, and where queries and class prototypes lie to each other.

    L = ce_weight · L_CE + query_weight · mean((C_s - C_t)²) + class_weight · mean((R_s - R_t)²)

    A class's prototype is the mean embedding of its support examples. C [queries, ways] are the
    cosines of each query with each prototype, R [ways, ways] those of the prototypes with each
    other; s in the student's embedding, t in the teacher's. It needs neither a fitted scale, as
    soft targets of prototypes do, nor equal sizes. It acts in episodes of learners that embed and
    compare; on whole batches the labels alone count.

    Terms `loss/ce`, `loss/query`, `loss/class` (before their weights).

    Args:
        student_size: unused here; part of every objective's constructor.
        teacher_size: likewise.
        teacher_mean: likewise.
        ce_weight: weight of the loss on the labels, above 0.
        query_weight: weight of the queries' similarities with the prototypes.
        class_weight: weight of the prototypes' similarities with each other.

    Raises:
        UserError: a weight is negative, or that of the labels is 0.
    """

    needs: ClassVar[Needs] = {
        "embeddings": ("query_weight",),
        "prototypes": ("query_weight", "class_weight"),
    }
    compares_supports = True
    query_weight: float
    class_weight: float

    def __init__(
        self,
        student_size: int = 0,
        teacher_size: int = 0,
        teacher_mean: Tensor | None = None,
        *,
        ce_weight: float = 1.0,
        query_weight: float = 20.0,
        class_weight: float = 20.0,
    ) -> None:
        super().__init__(student_size, teacher_size, teacher_mean)
        self.weigh("prototypes", ce_weight, query_weight=query_weight, class_weight=class_weight)
        if not ce_weight:
            raise UserError(
                "distill.ce_weight=0: distill=prototypes learns from labels alone on whole "
                "batches; set it above 0"
            )

    def taught(
        self, student: Prediction, targets: Tensor, answer: Answer
    ) -> dict[str, tuple[float, Tensor]]:
        """See `Distillation.taught`."""
        if "prototypes" not in student.features:
            return {}
        ours = unit(widened(student.features["prototypes"]))
        theirs = unit(widened(answer.features["prototypes"]))
        weighted: dict[str, tuple[float, Tensor]] = {}
        if self.query_weight:
            e_s, e_t = embeddings_of(student, answer)
            c_s, c_t = unit(e_s) @ ours.transpose(-1, -2), unit(e_t) @ theirs.transpose(-1, -2)
            weighted["loss/query"] = (self.query_weight, F.mse_loss(c_s, c_t))
        if self.class_weight:
            r_s, r_t = ours @ ours.transpose(-1, -2), theirs @ theirs.transpose(-1, -2)
            weighted["loss/class"] = (self.class_weight, F.mse_loss(r_s, r_t))
        return weighted
