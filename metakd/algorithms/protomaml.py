"""`algorithm=protomaml`: MAML whose head starts, for each task, from the class prototypes."""

from __future__ import annotations

from torch import nn

from metakd.adaptation.differentiation import Tensors
from metakd.adaptation.gradient_learner import GradientLearner
from metakd.adaptation.inner_loop import InnerLoop, Task
from metakd.adaptation.outer_gradients import unrolled
from metakd.adaptation.settings import Adaptation
from metakd.adaptation.task_classifiers import prototypes
from metakd.adaptation.update_rules import descent

__all__ = ["ProtoMAML", "prototype_head"]


def prototype_head(loop: InnerLoop, values: Tensors, task: Task) -> Tensors:
    """Return `values` with the head that a prototypical network amounts to; a `StartOf`.

    -‖x - c_k‖² = 2 c_k·x - ‖c_k‖² - ‖x‖², and ‖x‖² is the same for all classes: the weights are
    w_k = 2 c_k [ways, size] and the biases b_k = -‖c_k‖² [ways], c_k the mean of class k's support
    embeddings. The outer gradient goes through them into the backbone.

    Args:
        loop: the inner loop.
        values: all values; those of the head are not read.
        task: one task.
    """
    embeddings, _ = loop.embed(values, task.support.inputs, "batch")
    centres = prototypes(embeddings[None], task.support.targets[None], task.ways)[0]
    head = {"network.head.weight": 2.0 * centres, "network.head.bias": -centres.square().sum(-1)}
    return {**values, **head}


class ProtoMAML(GradientLearner):
    """Proto-MAML (Triantafillou et al., 2020, "Meta-Dataset", section 3).

    Before the first step it classifies as a prototypical network does; then body and head adapt
    as in MAML. The head has as many outputs as the task has ways, so tasks of any ways can be
    solved, and no head is learned. Published with first-order gradients.

    Args:
        backbone: the student's.
        outputs: not needed: training may use other ways than evaluation.
        adaptation: its settings; `inner_lr` is the rate of body and head.
    """

    def __init__(
        self,
        backbone: nn.Module,
        outputs: int,
        *,
        adaptation: Adaptation = Adaptation(first_order=True),
    ) -> None:
        super().__init__(
            backbone,
            outputs,
            descent(adaptation),
            unrolled,
            adaptation,
            start_of=prototype_head,
        )
