"""`distill=similarity`: examples that are alike to the teacher are to the student, too."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from metakd.distillation.distillation import Distillation, embeddings_of
from metakd.distillation.divergences import unit
from metakd.distillation.objective import Answer, Needs
from metakd.models.network import Prediction

__all__ = ["SimilarityPreserving", "gram_loss"]


def gram_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared difference of two Gram matrices with rows of length 1, a scalar.

    Args:
        student: [..., n, student_size].
        teacher: [..., n, teacher_size].
    """
    ours, theirs = (unit(x @ x.transpose(-1, -2)) for x in (student, teacher))
    return F.mse_loss(ours, theirs)


class SimilarityPreserving(Distillation):
    """L = ce_weight · L_CE + similarity_weight · mean((G_s/‖rows‖ - G_t/‖rows‖)²).

    G = E Eᵀ over the examples of a batch (of each task), E their embeddings; each row is scaled to
    length 1. `distill=embedding` compares cosines instead.

    Source: Tung & Mori, "Similarity-preserving knowledge distillation" (2019), with the embeddings
    in place of the last feature map; weight 3000.

    Terms `loss/ce`, `loss/similarity` (before their weights).

    Args:
        student_size: unused here; part of every objective's constructor.
        teacher_size: likewise.
        teacher_mean: likewise.
        ce_weight: weight of the loss on the labels.
        similarity_weight: weight of the Gram matrices.

    Raises:
        UserError: a weight is negative, or both are 0.
    """

    needs: ClassVar[Needs] = {"embeddings": ("similarity_weight",)}
    similarity_weight: float

    def __init__(
        self,
        student_size: int = 0,
        teacher_size: int = 0,
        teacher_mean: Tensor | None = None,
        *,
        ce_weight: float = 1.0,
        similarity_weight: float = 3000.0,
    ) -> None:
        super().__init__(student_size, teacher_size, teacher_mean)
        self.weigh("similarity", ce_weight, similarity_weight=similarity_weight)

    @property
    def mean_over_examples(self) -> bool:
        """See `Objective`: the examples of a batch are compared."""
        return not self.similarity_weight

    def taught(
        self, student: Prediction, targets: Tensor, answer: Answer
    ) -> dict[str, tuple[float, Tensor]]:
        """See `Distillation.taught`."""
        if not self.similarity_weight:
            return {}
        return {
            "loss/similarity": (self.similarity_weight, gram_loss(*embeddings_of(student, answer)))
        }
