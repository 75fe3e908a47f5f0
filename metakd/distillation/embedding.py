"""`distill=embedding`: the student's embeddings follow the teacher's, directly and in relation."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from metakd.distillation.distillation import Distillation, embeddings_of
from metakd.distillation.divergences import similarity_of_units, unit
from metakd.distillation.kd import check_temperature, soft_target_loss
from metakd.distillation.objective import Answer, Needs
from metakd.errors import UserError, check_word
from metakd.models.network import Prediction

__all__ = ["EmbeddingMatch"]

CONNECTORS = ("learned", "orthogonal")


class EmbeddingMatch(Distillation):
    """Labels, direction of each embedding, and similarities within the batch.

    L = ce_weight · L_CE
      + embedding_weight · mean(1 - cos(A ê_s, e_t - μ))
      + similarity_weight · mean((S_s - S_t)²)
      + kd_weight · τ² KL(teacher || student)

    ê is the normalised embedding, A a learned linear map from the student's space to the
    teacher's, μ the teacher's mean embedding over meta-train images, S the cosine-similarity
    matrices of the unprojected, uncentred embeddings within a batch (within each task, if there
    are leading task dimensions). No term but the labels' and KL's needs classes, so it works on
    whole batches and inside episodes alike.

    A learned A can be any linear map, so that the cosines of the student's embeddings, by which it
    is judged, need not become the teacher's. With `connector="orthogonal"` the columns of A stay
    orthonormal (AᵀA = I; each update is followed by a QR decomposition, a retraction onto these
    matrices), which leaves all cosines as they are (Miles et al., "VkD: Improving Knowledge
    Distillation using Orthogonal Projections", CVPR 2024, there by another parametrisation).

    Terms `loss/ce`, `loss/embedding`, `loss/similarity`, `loss/kd` (before their weights); one
    whose weight is 0 is neither computed nor logged, and A is not made if it has no use. Computes
    in float32, also inside an autocast region.

    Args:
        student_size: size of the student's embeddings.
        teacher_size: size of the teacher's.
        teacher_mean: μ [teacher_size]; None: no centring.
        ce_weight: weight of the loss on the labels.
        embedding_weight: weight of the directions.
        similarity_weight: weight of the similarities.
        kd_weight: weight of the soft targets.
        temperature: τ of the soft targets.
        connector: what A is, `learned` or `orthogonal`.

    Raises:
        UserError: a weight is negative, all are 0, the temperature is not positive, there is no
            such connector, or it is to be orthogonal and there is none, or from a longer embedding
            to a shorter one.
    """

    needs: ClassVar[Needs] = {
        "embeddings": ("embedding_weight", "similarity_weight"),
        "logits": ("kd_weight",),
    }
    teacher_mean: Tensor
    embedding_weight: float
    similarity_weight: float
    kd_weight: float

    def __init__(
        self,
        student_size: int,
        teacher_size: int,
        teacher_mean: Tensor | None = None,
        *,
        ce_weight: float = 0.2,
        embedding_weight: float = 2.0,
        similarity_weight: float = 20.0,
        kd_weight: float = 0.0,
        temperature: float = 4.0,
        connector: str = "learned",
    ) -> None:
        super().__init__(student_size, teacher_size, teacher_mean)
        self.weigh(
            "embedding",
            ce_weight,
            embedding_weight=embedding_weight,
            similarity_weight=similarity_weight,
            kd_weight=kd_weight,
        )
        self.temperature = check_temperature(temperature)
        check_word("distill.options.connector", connector, CONNECTORS)
        self.orthogonal = connector == "orthogonal"
        self.projection = (
            nn.Linear(student_size, teacher_size, bias=False) if embedding_weight else None
        )
        if self.orthogonal:
            if self.projection is None:
                raise UserError(
                    "connector=orthogonal has no use with distill=embedding's embedding_weight=0; "
                    "set embedding_weight above 0, or connector=learned"
                )
            if student_size > teacher_size:
                raise UserError(
                    f"connector=orthogonal of distill=embedding: the student's embeddings have "
                    f"{student_size} numbers, the teacher's {teacher_size}, and no map to fewer "
                    "keeps all angles; set connector=learned, or make the student's embedding "
                    "smaller (of conv4 by student.options.projection)"
                )
            nn.init.orthogonal_(self.projection.weight)
        mean = torch.zeros(teacher_size) if teacher_mean is None else teacher_mean.detach().clone()
        if mean.shape != (teacher_size,):
            raise ValueError(f"teacher_mean has shape {tuple(mean.shape)}, not ({teacher_size},)")
        self.register_buffer("teacher_mean", mean)

    @property
    def mean_over_examples(self) -> bool:
        """See `Objective`: the similarity term compares the examples of a batch."""
        return not self.similarity_weight

    def taught(
        self, student: Prediction, targets: Tensor, answer: Answer
    ) -> dict[str, tuple[float, Tensor]]:
        """See `Distillation.taught`.

        Raises:
            ValueError: embeddings are to be matched and one side has none, or soft targets and the
                answer has none.
        """
        weighted: dict[str, tuple[float, Tensor]] = {}
        if self.projection is not None or self.similarity_weight:
            e_s, e_t = embeddings_of(student, answer)
            unit_s = unit(e_s)  # once for both terms: a small student's step is mostly calls
        if self.projection is not None:
            towards = unit(e_t - self.teacher_mean)
            # The mean cosine of unit vectors is the sum of products over their number.
            cosine = (unit(self.projection(unit_s)) * towards).sum() / targets.numel()
            weighted["loss/embedding"] = (self.embedding_weight, 1.0 - cosine)
        if self.similarity_weight:
            similarity = similarity_of_units(unit_s, unit(e_t))
            weighted["loss/similarity"] = (self.similarity_weight, similarity)
        if self.kd_weight:
            kd = soft_target_loss(student.logits, targets, answer, self.temperature)
            weighted["loss/kd"] = (self.kd_weight, kd)
        return weighted

    @torch.no_grad()
    def advance(self) -> dict[str, float]:
        """See `Objective.advance`: an orthogonal A, moved by the update, is made so again."""
        if self.orthogonal and self.projection is not None:
            weight = self.projection.weight
            q, r = torch.linalg.qr(weight.cpu().double())  # MPS has no float64
            weight.copy_(torch.where(r.diagonal() < 0, -q, q))
        return super().advance()

    def extra_repr(self) -> str:
        """Return the weights, for `print`."""
        return (
            f"ce={self.ce_weight:g}, embedding={self.embedding_weight:g}, "
            f"similarity={self.similarity_weight:g}, kd={self.kd_weight:g}"
        )
