"""`algorithm=anil`: MAML whose inner loop adapts the head alone."""

from __future__ import annotations

from torch import nn

from metakd.adaptation.gradient_learner import GradientLearner
from metakd.adaptation.outer_gradients import unrolled
from metakd.adaptation.settings import Adaptation
from metakd.adaptation.update_rules import descent

__all__ = ["ANIL"]


class ANIL(GradientLearner):
    """Almost no inner loop (Raghu et al., 2020; method.md section 5).

    The body is the same before and after adaptation, so each task is embedded once and the inner
    loop runs on the embeddings; the outer gradient reaches the body through them.

    Args:
        backbone: the student's.
        outputs: classes of a task, or regression outputs.
        adaptation: its settings; `inner_lr` is the step size of the head; `inner_precision`
            is that of the embedding, the head is adapted in float32.
    """

    unused = frozenset({"checkpoint_steps"})

    def __init__(
        self,
        backbone: nn.Module,
        outputs: int,
        *,
        adaptation: Adaptation = Adaptation(inner_lr=0.1),
    ) -> None:
        super().__init__(
            backbone, outputs, descent(adaptation), unrolled, adaptation, adapted="head"
        )
