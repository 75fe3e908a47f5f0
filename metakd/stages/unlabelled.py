"""The student follows the teacher on examples without labels."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from metakd.algorithms.supervised import Supervised
from metakd.data.class_data import ClassData
from metakd.data.tasks import Batch, ExampleBatch
from metakd.distillation.objective import Answer, Answers, Objective, TaskAnswers
from metakd.stages.fit import Fitted, StageContext, fit

__all__ = ["Follower", "follow"]


class Follower(Supervised):
    """A backbone without labels: it has one output, whose cross-entropy is 0."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__(backbone, 1)

    def accumulate(self, batch: Batch, objective: Objective, answers: Answers) -> dict[str, Tensor]:
        """See `Algorithm.accumulate`; there is no accuracy without labels."""
        assert isinstance(batch, ExampleBatch) and not isinstance(answers, TaskAnswers)
        prediction = self.network(batch.examples, objective.stages)
        terms = objective(prediction, batch.labels, answers)
        terms["loss"].backward()
        return {name: t.detach() for name, t in terms.items() if name != "loss/ce"}


def follow(
    backbone: nn.Module,
    data: ClassData,
    objective: Objective,
    context: StageContext,
    *,
    answers_to: Callable[[ExampleBatch], Answer],
    updates: int,
    batch_size: int,
) -> Fitted:
    """Train `backbone` in place on what a teacher says of examples without labels.

    Args:
        backbone: the student's.
        data: the examples, as the split `train` of one class.
        objective: a distillation that reads neither logits nor labels.
        context: how it computes, and where metrics go.
        answers_to: the teacher's answer to a batch.
        updates: number of them.
        batch_size: examples of an update.
    """
    learner = Follower(backbone).to(data.device)
    batches = data.batches("train", batch_size=batch_size, seed=context.seed, stage="unlabelled")
    return fit(learner, objective, batches.batch, context, steps=updates, answers_to=answers_to)
