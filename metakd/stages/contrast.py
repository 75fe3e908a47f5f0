"""Self-supervised training: two changed views of an example are brought together, others apart."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metakd.data.class_data import ClassData
from metakd.data.counter_random import stream_key
from metakd.data.tasks import ExampleBatch
from metakd.distillation.divergences import unit, widened
from metakd.distillation.objective import Answer, Objective
from metakd.models.network import Prediction
from metakd.stages.fit import Fitted, StageContext, fit
from metakd.stages.unlabelled import Follower

__all__ = ["Contrast", "contrast"]

TEMPERATURE = 0.1


class Contrast(Objective):
    """NT-Xent (Chen et al. 2020, "A simple framework for contrastive learning", equation 1).

    Of each view: the cross-entropy of finding the other view of its example among all other views
    of the batch, by cosine over a temperature. Term `loss/contrast`.
    """

    def forward(
        self, student: Prediction, targets: Tensor, answer: Answer | None
    ) -> dict[str, Tensor]:
        """See `Objective.forward`; `targets` [n] tells whose views embeddings [n, size] are.

        Each example has two.
        """
        assert student.embeddings is not None
        with torch.autocast(targets.device.type, enabled=False):
            directions = unit(widened(student.embeddings))
            similar = directions @ directions.T / TEMPERATURE
            own = torch.eye(len(targets), dtype=torch.bool, device=targets.device)
            similar = similar.masked_fill(own, -torch.inf)
            other = ((targets[:, None] == targets[None]) & ~own).int().argmax(1)
            loss = F.cross_entropy(similar, other)
        return {"loss": loss, "loss/contrast": loss}


def contrast(
    backbone: nn.Module, data: ClassData, context: StageContext, *, updates: int, batch_size: int
) -> Fitted:
    """Train `backbone` in place on views of the meta-train examples, without labels.

    Args:
        backbone: the student's.
        data: the dataset; it changes examples at random.
        context: how it computes, and where metrics go.
        updates: number of them.
        batch_size: examples of an update, two views of each.
    """
    batches = data.batches(
        "train", batch_size=batch_size, seed=context.seed, stage="contrast", augmented=False
    )

    def views(step: int) -> ExampleBatch:
        index = batches.batch(step).index
        both = index.repeat(2)
        examples = data.fresh_examples("train", both, stream_key(context.seed, "contrast", step))
        return ExampleBatch(examples, torch.arange(len(index), device=both.device).repeat(2), both)

    learner = Follower(backbone).to(data.device)
    return fit(learner, Contrast().to(data.device), views, context, steps=updates)
