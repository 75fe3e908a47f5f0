"""Learners that compare embeddings, as graphs: any number of ways, shots and queries."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from metakd.adaptation.algorithm import MetricAlgorithm
from metakd.exporting.graphs.graph import AdaptingGraph, Free, Graph
from metakd.models.normalization import (
    batchnorm_mode,
    forget_statistics,
    has_batchnorm,
    has_running_statistics,
)

__all__ = ["Metric", "MetricHead", "embed_both", "metric_graph"]


class MetricHead(nn.Module):
    """A learner's classifier on embeddings, without its network.

    Args:
        learner: whose `classify` is used.
    """

    def __init__(self, learner: MetricAlgorithm) -> None:
        super().__init__()
        # A copy in which the network, which is not called, takes no space.
        self.learner = copy.deepcopy(learner, {id(learner.backbone): nn.Identity()})

    def forward(self, features: Tensor, labels: Tensor, query: Tensor) -> Tensor:
        """Return logits [q, ways].

        Args:
            features: [n, size] of the support examples.
            labels: [n, ways], one-hot.
            query: features [q, size].
        """
        targets = labels.argmax(1)
        logits = self.learner.classify(features[None], targets[None], query[None], labels.shape[1])
        return logits[0]


def embed_both(backbone: nn.Module, support: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
    """Return embeddings [n, size] and [q, size], batch norm by the support set's statistics."""
    with batchnorm_mode(backbone, "record"):
        shown = backbone(support)
    with batchnorm_mode(backbone, "recorded"):
        asked = backbone(query)
    forget_statistics(backbone)
    return shown, asked


class Metric(nn.Module):
    """A network and a classifier on its embeddings.

    Args:
        backbone: the network.
        head: the classifier.
    """

    def __init__(self, backbone: nn.Module, head: MetricHead) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head
        self.alone = not has_batchnorm(backbone) or has_running_statistics(backbone)

    def forward(self, support: Tensor, labels: Tensor, query: Tensor) -> Tensor:
        """Return logits [q, ways]; see `AdaptingGraph`."""
        shown, asked = self.embed(support, query)
        logits: Tensor = self.head(shown, labels, asked)
        return logits

    def embed(self, support: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
        """Return embeddings [n, size] and [q, size]."""
        if self.alone:
            return self.backbone(support), self.backbone(query)
        return embed_both(self.backbone, support, query)


def metric_graph(backbone: nn.Module, head: MetricHead, graph: AdaptingGraph) -> AdaptingGraph:
    """Return the graph of a learner.

    Args:
        backbone: its network.
        head: its classifier.
        graph: with the inputs; its module is not read.
    """
    whole = Metric(backbone, head).eval()
    free = {name: dict(dims) for name, dims in graph.free.items()}
    free["labels"][1] = "ways"
    found = replace(graph, module=whole, free=free)
    if not whole.alone:
        return found
    support, labels, query = graph.example_inputs()
    with torch.no_grad():
        features = {"features": backbone(support), "labels": labels, "query": backbone(query)}
    of_head: Free = {
        "features": {0: "examples"},
        "labels": free["labels"],
        "query": {0: "queries"},
    }
    return replace(
        found,
        embedding=Graph(
            backbone, {"examples": support}, {"examples": free["support"]}, graph.limits
        ),
        head=Graph(head, features, of_head, {}),
    )
