"""The network of a whole dataset as a graph: it names its own classes and learns no others."""

from __future__ import annotations

import copy

from torch import Tensor, nn

from metakd.errors import UserError
from metakd.exporting.graphs.adapting import example_inputs
from metakd.exporting.graphs.graph import Graph
from metakd.models.normalization import has_batchnorm, has_running_statistics
from metakd.using.learner import Trained

__all__ = ["classifier_graph"]


class _Logits(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, examples: Tensor) -> Tensor:
        """Return logits [n, classes]."""
        logits: Tensor = self.network(examples).logits
        return logits


def classifier_graph(trained: Trained) -> Graph:
    """Return a classifier as a graph from examples [n, *example] to logits [n, classes].

    Args:
        trained: by `task=classes`; left as it is.

    Raises:
        UserError: it has no head over its classes, or answers for a batch alone.
    """
    network = trained.algorithm.whole_network()
    if network is None or network.head.out_features != len(trained.classes):
        raise UserError(
            f"export: this {trained.recipe.model} has no head over the classes of its dataset"
        )
    if has_batchnorm(network) and not has_running_statistics(network):
        raise UserError(
            "export: this student has batch norm without running statistics, so that a picture "
            "has no answer of its own"
        )
    module = _Logits(copy.deepcopy(network).cpu()).eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    made, limits = example_inputs(trained, [len(trained.classes)])
    free = {0: "examples"} | ({1: "length"} if limits else {})
    return Graph(module, {"examples": made}, {"examples": free}, limits)
