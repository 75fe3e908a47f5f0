"""`distill=relational`: distances and angles between examples (Park et al. 2019)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from metakd.distillation.distillation import Distillation, embeddings_of
from metakd.distillation.objective import Answer, Needs
from metakd.models.network import Prediction

__all__ = ["Relational", "angle_loss", "distance_loss", "distances"]

_SMALLEST = 1e-12
"""Of a squared distance: examples in the same place have a slope, too."""


def _squares(gram: Tensor) -> Tensor:
    """Return squared distances [..., n, n] from a Gram matrix, 0 on the diagonal."""
    own = gram.diagonal(dim1=-2, dim2=-1)
    apart = 1.0 - torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    return (own.unsqueeze(-1) + own.unsqueeze(-2) - 2.0 * gram).clamp_min(0.0) * apart


def _gram(embeddings: Tensor) -> Tensor:
    """Return products [..., n, n] of centred embeddings: small ones, which lose fewer digits."""
    centred = embeddings - embeddings.mean(-2, keepdim=True)
    return centred @ centred.transpose(-1, -2)


def distances(embeddings: Tensor) -> Tensor:
    """Return the distances [..., n, n] between examples over their mean off the diagonal.

    Args:
        embeddings: [..., n, size].
    """
    found = (_squares(_gram(embeddings)) + _SMALLEST).sqrt()
    n = embeddings.shape[-2]
    apart = 1.0 - torch.eye(n, dtype=found.dtype, device=found.device)
    found = found * apart
    return found * (max(1, n * (n - 1)) / found.sum((-2, -1), keepdim=True).clamp_min(_SMALLEST))


def distance_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the Huber loss of the two sides' `distances`, the mean over pairs, a scalar.

    Args:
        student: [..., n, student_size].
        teacher: [..., n, teacher_size].
    """
    return F.smooth_l1_loss(distances(student), distances(teacher))


def angles(embeddings: Tensor) -> Tensor:
    """Return the cosines [..., n, n, n] of the angles (i, j, k), i in the middle.

    0 where i is one of the other two.

    Args:
        embeddings: [..., n, size].
    """
    gram = _gram(embeddings)
    own = gram.diagonal(dim1=-2, dim2=-1)[..., None, None]
    # (e_j - e_i) · (e_k - e_i)
    products = gram.unsqueeze(-3) - gram.unsqueeze(-1) - gram.unsqueeze(-2) + own
    lengths = (_squares(gram) + _SMALLEST).sqrt()
    eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    inverse = (1.0 - eye) / lengths
    return products * inverse.unsqueeze(-1) * inverse.unsqueeze(-2)


def angle_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the Huber loss of the two sides' `angles`, the mean over triples, a scalar.

    Args:
        student: [..., n, student_size].
        teacher: [..., n, teacher_size].
    """
    return F.smooth_l1_loss(angles(student), angles(teacher))


class Relational(Distillation):
    """Labels, and the distances and angles between the examples' embeddings.

    L = ce_weight · L_CE + distance_weight · mean(h(d_s - d_t)) + angle_weight · mean(h(a_s - a_t))

    d are the Euclidean distances within a batch (within each task) over their mean, a the cosines
    of the angles of all triples, h Huber's loss. Memory grows with the cube of the number of
    examples where angles have a weight. Needs no classes.

    Source: Park et al., "Relational knowledge distillation" (2019), with weights 25 and 50.

    Terms `loss/ce`, `loss/distance`, `loss/angle` (before their weights).

    Args:
        student_size: unused here; part of every objective's constructor.
        teacher_size: likewise.
        teacher_mean: likewise.
        ce_weight: weight of the loss on the labels.
        distance_weight: weight of the distances.
        angle_weight: weight of the angles.

    Raises:
        UserError: a weight is negative, or all are 0.
    """

    needs: ClassVar[Needs] = {"embeddings": ("distance_weight", "angle_weight")}
    distance_weight: float
    angle_weight: float

    def __init__(
        self,
        student_size: int = 0,
        teacher_size: int = 0,
        teacher_mean: Tensor | None = None,
        *,
        ce_weight: float = 1.0,
        distance_weight: float = 25.0,
        angle_weight: float = 50.0,
    ) -> None:
        super().__init__(student_size, teacher_size, teacher_mean)
        self.weigh(
            "relational", ce_weight, distance_weight=distance_weight, angle_weight=angle_weight
        )

    @property
    def mean_over_examples(self) -> bool:
        """See `Objective`: the examples of a batch are compared."""
        return not self.distance_weight + self.angle_weight

    def taught(
        self, student: Prediction, targets: Tensor, answer: Answer
    ) -> dict[str, tuple[float, Tensor]]:
        """See `Distillation.taught`."""
        terms = (
            ("loss/distance", self.distance_weight, distance_loss),
            ("loss/angle", self.angle_weight, angle_loss),
        )
        return {
            name: (weight, loss(*embeddings_of(student, answer)))
            for name, weight, loss in terms
            if weight
        }
