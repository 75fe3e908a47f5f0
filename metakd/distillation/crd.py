"""`distill=crd`: contrastive, each example's two embeddings find each other (Tian et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from metakd.distillation.distillation import Distillation, embeddings_of
from metakd.distillation.divergences import unit
from metakd.distillation.objective import Answer, Needs
from metakd.errors import UserError
from metakd.models.network import Prediction

__all__ = ["CRD", "contrast"]

_NOBODY = -1
"""Label of a row of the memory that holds nothing yet."""


def contrast(
    anchors: Tensor, candidates: Tensor, labels: Tensor, others: Tensor, temperature: float
) -> Tensor:
    """Return the mean of -log of the share that each anchor gives its own candidate, a scalar.

    The share is the softmax of cosine / temperature over its own candidate and those of other
    classes (InfoNCE). Candidate i belongs to anchor i; further ones belong to none.

    Args:
        anchors: [..., n, size], of length 1.
        candidates: [..., m, size], of length 1, n of them or more.
        labels: classes of the anchors [..., n].
        others: classes of the candidates [..., m]; -1: left out.
        temperature: the smaller, the more the nearest others count.
    """
    logits = anchors @ candidates.transpose(-1, -2) / temperature
    n, m = logits.shape[-2:]
    own = torch.eye(n, m, dtype=torch.bool, device=logits.device)
    left_out = (labels.unsqueeze(-1) == others.unsqueeze(-2)) | (others == _NOBODY).unsqueeze(-2)
    shares = logits.masked_fill(left_out & ~own, -torch.inf).log_softmax(-1)
    return -shares.diagonal(dim1=-2, dim2=-1).mean()


class CRD(Distillation):
    """L = ce_weight · L_CE + crd_weight · (contrast of s among t + contrast of t among s).

    Both embeddings are mapped to a common space by learned affine maps, which are no part of the
    student, and scaled to length 1. The student's embedding of an example has to be nearer to the
    teacher's of the same example than to those of examples of other classes, and the reverse.

    On whole batches the others are those of the batch and of a memory of the latest examples, as
    they were embedded when they were seen; it starts empty in each stage and is saved with a
    checkpoint. In episodes they are the task's own examples.

    Source: Tian et al., "Contrastive representation distillation" (2020), weight 0.8, temperature
    0.07, 128 dimensions, 16384 negatives. Here InfoNCE takes the place of their noise-contrastive
    estimate, and a queue (He et al. 2020) that of their table of the dataset, whose negatives are
    drawn at random.

    Terms `loss/ce`, `loss/crd` (before their weights).

    Args:
        student_size: size of the student's embeddings.
        teacher_size: size of the teacher's.
        teacher_mean: unused here; part of every objective's constructor.
        ce_weight: weight of the loss on the labels.
        crd_weight: weight of the contrast.
        dimensions: of the common space.
        softness: temperature of the contrast.
        memory: examples that are remembered; 0: the batch alone.

    Raises:
        UserError: a weight is negative, both are 0; a number that has to be above 0.
    """

    needs: ClassVar[Needs] = {"embeddings": ("crd_weight",)}
    compares_classes = True
    crd_weight: float
    remembered: Tensor
    remembered_labels: Tensor
    count: Tensor

    def __init__(
        self,
        student_size: int,
        teacher_size: int,
        teacher_mean: Tensor | None = None,
        *,
        ce_weight: float = 1.0,
        crd_weight: float = 0.8,
        dimensions: int = 128,
        softness: float = 0.07,
        memory: int = 4096,
    ) -> None:
        super().__init__(student_size, teacher_size, teacher_mean)
        self.weigh("crd", ce_weight, crd_weight=crd_weight)
        for name, value, least in (("dimensions", dimensions, 1), ("memory", memory, 0)):
            if value < least:
                raise UserError(f"distill.options.{name}={value}: must be {least} or more")
        if not softness > 0:
            raise UserError(f"distill.options.softness={softness:g}: must be above 0; try 0.07")
        self.softness = softness
        self.project = None if not crd_weight else nn.Linear(student_size, dimensions)
        self.project_teacher = None if not crd_weight else nn.Linear(teacher_size, dimensions)
        rows = memory if crd_weight else 0
        self.register_buffer("remembered", torch.zeros(2, rows, dimensions))
        self.register_buffer("remembered_labels", torch.full((rows,), _NOBODY))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self._remembers = False
        self._seen: tuple[Tensor, Tensor, Tensor] | None = None

    @property
    def mean_over_examples(self) -> bool:
        """See `Objective`: the examples of a batch are compared."""
        return self.project is None

    @classmethod
    def idle(cls, settings: Mapping[str, Any], *, whole: bool) -> Mapping[str, str]:
        """See `Objective.idle`."""
        return {} if whole else {"memory": "it is of whole batches, and there are none"}

    @torch.no_grad()
    def begin(self, step: int, steps: int, *, whole: bool) -> None:
        """See `Objective.begin`; the memory is used on whole batches, and empty at first."""
        super().begin(step, steps, whole=whole)
        self._remembers = whole and self.remembered.shape[1] > 0
        self._seen = None
        if step == 0:
            self.remembered_labels.fill_(_NOBODY)
            self.count.zero_()

    @torch.no_grad()
    def advance(self) -> dict[str, float]:
        """See `Objective.advance`: the latest examples take the place of the oldest ones."""
        if self._seen is None:
            return super().advance()
        rows = self.remembered.shape[1]
        ours, theirs, labels = (x[-rows:] for x in self._seen)
        at = (self.count + torch.arange(len(labels), device=labels.device)) % rows
        self.remembered[0].index_copy_(0, at, ours.to(self.remembered.dtype))
        self.remembered[1].index_copy_(0, at, theirs.to(self.remembered.dtype))
        self.remembered_labels.index_copy_(0, at, labels)
        self.count.copy_((self.count + len(labels)) % rows)
        self._seen = None
        return super().advance()

    def taught(
        self, student: Prediction, targets: Tensor, answer: Answer
    ) -> dict[str, tuple[float, Tensor]]:
        """See `Distillation.taught`.

        Raises:
            ValueError: the targets are no classes, or a side has no embeddings.
        """
        if self.project is None or self.project_teacher is None:
            return {}
        if targets.is_floating_point():
            raise ValueError("distill=crd knows target classes; these targets are numbers")
        e_s, e_t = embeddings_of(student, answer)
        ours, theirs = unit(self.project(e_s)), unit(self.project_teacher(e_t))
        all_ours, all_theirs, labels = ours, theirs, targets
        if self._remembers:
            self._seen = ours.detach(), theirs.detach(), targets
            # Copies: `advance` writes to the memory, which the backward pass still reads.
            old = self.remembered.to(ours.dtype, copy=True)
            all_ours, all_theirs = torch.cat([ours, old[0]]), torch.cat([theirs, old[1]])
            labels = torch.cat([targets, self.remembered_labels])
        loss = contrast(ours, all_theirs, targets, labels, self.softness) + contrast(
            theirs, all_ours, targets, labels, self.softness
        )
        return {"loss/crd": (self.crd_weight, loss)}
