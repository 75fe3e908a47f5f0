"""`distill=correlation`: each dimension of the embedding varies as the teacher's (ITRD)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from metakd.distillation.distillation import Distillation, embeddings_of
from metakd.distillation.divergences import unit
from metakd.distillation.objective import Answer, Needs
from metakd.models.network import Prediction

__all__ = ["Correlation", "correlation_loss", "mutual_loss"]

_SMALLEST_VARIANCE = 1e-10
_SMALLEST_SUM = 1e-6


def correlation_loss(student: Tensor, teacher: Tensor, alpha: float) -> Tensor:
    """Return log2 Σ_d (1 - ρ_d)^{2α}, the mean over leading dimensions, a scalar.

    ρ_d is Pearson's correlation of dimension d over the examples.

    Args:
        student: [..., n, size].
        teacher: likewise.
        alpha: α, ½ or more; the larger, the more the worst dimensions count.
    """
    ours, theirs = (x - x.mean(-2, keepdim=True) for x in (student, teacher))
    lengths = (ours.square().sum(-2) + _SMALLEST_VARIANCE) * (
        theirs.square().sum(-2) + _SMALLEST_VARIANCE
    )
    apart = (1.0 - (ours * theirs).sum(-2) / lengths.sqrt()).clamp_min(0.0)
    powers = (apart.square() + _SMALLEST_VARIANCE) ** alpha
    return (powers.sum(-1) + _SMALLEST_SUM).log2().mean()


def mutual_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return ‖G_s‖² - ‖G_s ∘ G_t‖², the mean over leading dimensions, a scalar.

    G are the Gram matrices of embeddings of length 1, each product with trace 1. The smaller, the
    more the two sides agree on which examples are alike.

    Args:
        student: [..., n, student_size].
        teacher: [..., n, teacher_size].
    """
    n = student.shape[-2]
    ours, theirs = (x @ x.transpose(-1, -2) for x in (unit(student), unit(teacher)))
    return ((ours.square() - (ours * theirs).square()).sum((-2, -1)) / n**2).mean()


class Correlation(Distillation):
    """Labels, and how dimensions and examples of the embeddings go together.

    L = ce_weight · L_CE + correlation_weight · log2 Σ_d (1 - ρ_d)^{2α}
      + mutual_weight · (‖G_s‖² - ‖G_s ∘ G_t‖²)

    ρ_d correlates dimension d of A e_s, A a learned affine map, with that of e_t over the batch
    (over each task); G are Gram matrices of A e_s and e_t. A is trained with the student and never
    part of it. The first term falls without bound as the correlations approach 1. Needs no classes.

    Source: Miles et al., "Information theoretic representation distillation" (2022), with weights
    2 and 0.05, α = 1.01 (1.5 between networks of different kinds).

    Terms `loss/ce`, `loss/correlation`, `loss/mutual` (before their weights).

    Args:
        student_size: size of the student's embeddings.
        teacher_size: size of the teacher's.
        teacher_mean: unused here; part of every objective's constructor.
        ce_weight: weight of the loss on the labels.
        correlation_weight: weight of the correlations.
        mutual_weight: weight of the Gram matrices.
        alpha: α.

    Raises:
        UserError: a weight is negative, or all are 0.
    """

    needs: ClassVar[Needs] = {"embeddings": ("correlation_weight", "mutual_weight")}
    correlation_weight: float
    mutual_weight: float

    def __init__(
        self,
        student_size: int,
        teacher_size: int,
        teacher_mean: Tensor | None = None,
        *,
        ce_weight: float = 1.0,
        correlation_weight: float = 2.0,
        mutual_weight: float = 0.05,
        alpha: float = 1.01,
    ) -> None:
        super().__init__(student_size, teacher_size, teacher_mean)
        self.weigh(
            "correlation",
            ce_weight,
            correlation_weight=correlation_weight,
            mutual_weight=mutual_weight,
        )
        self.alpha = alpha
        used = correlation_weight + mutual_weight
        self.projection = nn.Linear(student_size, teacher_size) if used else None

    @property
    def mean_over_examples(self) -> bool:
        """See `Objective`: the examples of a batch are compared."""
        return self.projection is None

    def taught(
        self, student: Prediction, targets: Tensor, answer: Answer
    ) -> dict[str, tuple[float, Tensor]]:
        """See `Distillation.taught`."""
        if self.projection is None:
            return {}
        ours, theirs = embeddings_of(student, answer)
        ours = self.projection(ours)
        weighted: dict[str, tuple[float, Tensor]] = {}
        if self.correlation_weight:
            loss = correlation_loss(ours, theirs, self.alpha)
            weighted["loss/correlation"] = (self.correlation_weight, loss)
        if self.mutual_weight:
            weighted["loss/mutual"] = (self.mutual_weight, mutual_loss(ours, theirs))
        return weighted
