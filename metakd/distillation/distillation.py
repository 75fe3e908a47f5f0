"""What the losses share that add weighted terms of a teacher's answer to the one on the labels."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from metakd.distillation.divergences import widened
from metakd.distillation.objective import Answer, Objective, named_total
from metakd.models.network import Prediction

__all__ = ["Distillation"]


class Distillation(Objective):
    """L = ce_weight · L_CE + the weighted terms that `taught` returns.

    A term whose weight is 0 is neither computed nor logged. Computes in float32, also inside an
    autocast region.

    Attributes:
        ce_weight: weight of the loss on the labels; a subclass sets it.
    """

    ce_weight: float

    @property
    def mean_over_examples(self) -> bool:
        """See `Objective`; a subclass that compares examples says otherwise."""
        return True

    @abstractmethod
    def taught(
        self, student: Prediction, targets: Tensor, answer: Answer
    ) -> dict[str, tuple[float, Tensor]]:
        """Return the terms that read the teacher's answer: by name weight and value.

        Args:
            student: its logits in float32 or wider, the rest as the network gave it.
            targets: as in `Objective.forward`.
            answer: the teacher's.
        """

    def forward(
        self, student: Prediction, targets: Tensor, answer: Answer | None
    ) -> dict[str, Tensor]:
        """Return `loss` and the named terms; see `Objective.forward`.

        Raises:
            ValueError: the answer or the prediction lacks what a term reads.
        """
        if answer is None:
            return super().forward(student, targets, None)
        weighted: dict[str, tuple[float, Tensor]] = {}
        with torch.autocast(student.logits.device.type, enabled=False):
            student = student._replace(logits=widened(student.logits))
            if self.ce_weight:
                weighted["loss/ce"] = (self.ce_weight, self.label_loss(student.logits, targets))
            weighted |= self.taught(student, targets, answer)
        if not weighted:
            raise ValueError("no term could be computed: the teacher's answer has no logits")
        return named_total(weighted)
