"""Gradient steps on a linear head alone, their gradients written out: `algorithm=anil`."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metakd.adaptation.gradient_learner import GradientLearner
from metakd.adaptation.task_classifiers import members
from metakd.exporting.graphs.metric import embed_both

__all__ = ["HeadSteps"]

_WEIGHT, _BIAS = "network.head.weight", "network.head.bias"


class HeadSteps(nn.Module):
    """A network whose head descends the loss on the support set, by the learner's own rule.

    With outputs O = X Wᵀ + b of n examples the gradient of the mean cross-entropy by O is
    (softmax(O) - Y) / n, that of the mean squared error 2 (O - Y) / (n · outputs); by W it is the
    transpose of that times X.

    Args:
        learner: whose head adapts, and nothing else.
        steps: of adaptation.
        classes: the labels are classes, not numbers.
    """

    def __init__(self, learner: GradientLearner, steps: int, *, classes: bool) -> None:
        super().__init__()
        self.network, self.rule = learner.network, learner.rule
        self.steps, self.classes = steps, classes

    def forward(self, support: Tensor, labels: Tensor, query: Tensor) -> Tensor:
        """Return logits [q, ways], or outputs [q, outputs]; see `AdaptingGraph`."""
        shown, asked = embed_both(self.network.backbone, support, query)
        weight, bias = self.network.head.weight, self.network.head.bias
        values = {_WEIGHT: weight, _BIAS: bias}
        state = self.rule.start(values)
        outputs = len(bias)
        # A head may have more outputs than the task has classes.
        goal = members(labels.argmax(1), outputs, labels) if self.classes else labels
        for step in range(self.steps):
            found = F.linear(shown, values[_WEIGHT], values[_BIAS])
            if self.classes:
                error = (found.softmax(1) - goal) / shown.shape[0]
                loss = -(goal * found.log_softmax(1)).sum(1).mean()
            else:
                error = 2.0 * (found - goal) / (shown.shape[0] * outputs)
                loss = F.mse_loss(found, goal)
            gradients = {_WEIGHT: error.T @ shown, _BIAS: error.sum(0)}
            values, state = self.rule(step, values, gradients, loss, state)
        found = F.linear(asked, values[_WEIGHT], values[_BIAS])
        # No slice, whose end torch.export would compare with the number of outputs.
        return found.index_select(1, torch.arange(labels.shape[1], device=labels.device))
