"""`distill=pkt`: each example's neighbours, as probabilities (Passalis & Tefas 2018)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from metakd.distillation.distillation import Distillation, embeddings_of
from metakd.distillation.divergences import unit
from metakd.distillation.objective import Answer, Needs
from metakd.models.network import Prediction

__all__ = ["PKT", "neighbour_loss", "neighbours"]

_SMALLEST = 1e-7
"""Added to probabilities whose logarithm is taken."""


def neighbours(embeddings: Tensor) -> Tensor:
    """Return the probabilities [..., n, n] that example i has j for a neighbour; rows sum to 1.

    In proportion to (1 + cosine) / 2, the example itself included.

    Args:
        embeddings: [..., n, size].
    """
    e = unit(embeddings)
    kernel = 0.5 * (1.0 + e @ e.transpose(-1, -2))
    return kernel / kernel.sum(-1, keepdim=True)


def neighbour_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean over all pairs of p_t log(p_t / p_s), a scalar.

    That is the mean KL(teacher || student) of the neighbours over the number of examples.

    Args:
        student: [..., n, student_size].
        teacher: [..., n, teacher_size].
    """
    theirs, ours = neighbours(teacher) + _SMALLEST, neighbours(student) + _SMALLEST
    return (theirs * (theirs.log() - ours.log())).mean()


class PKT(Distillation):
    """L = ce_weight · L_CE + pkt_weight · mean_ij(p_t,ij log(p_t,ij / p_s,ij)).

    p_ij is how likely example j is a neighbour of i, by the cosine of their embeddings, within a
    batch (within each task). Needs no classes.

    Source: Passalis & Tefas, "Learning deep representations with probabilistic knowledge transfer"
    (2018); the weight 30000 is that of the comparison in Tian et al. (2020).

    Terms `loss/ce`, `loss/pkt` (before their weights).

    Args:
        student_size: unused here; part of every objective's constructor.
        teacher_size: likewise.
        teacher_mean: likewise.
        ce_weight: weight of the loss on the labels.
        pkt_weight: weight of the neighbours.

    Raises:
        UserError: a weight is negative, or both are 0.
    """

    needs: ClassVar[Needs] = {"embeddings": ("pkt_weight",)}
    pkt_weight: float

    def __init__(
        self,
        student_size: int = 0,
        teacher_size: int = 0,
        teacher_mean: Tensor | None = None,
        *,
        ce_weight: float = 1.0,
        pkt_weight: float = 30000.0,
    ) -> None:
        super().__init__(student_size, teacher_size, teacher_mean)
        self.weigh("pkt", ce_weight, pkt_weight=pkt_weight)

    @property
    def mean_over_examples(self) -> bool:
        """See `Objective`: the examples of a batch are compared."""
        return not self.pkt_weight

    def taught(
        self, student: Prediction, targets: Tensor, answer: Answer
    ) -> dict[str, tuple[float, Tensor]]:
        """See `Distillation.taught`."""
        if not self.pkt_weight:
            return {}
        return {"loss/pkt": (self.pkt_weight, neighbour_loss(*embeddings_of(student, answer)))}
