"""Backbone and head joined: images in, logits and embeddings out."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from torch import Tensor, nn

from metakd.models.features import recorded_features

__all__ = ["Network", "Prediction", "embed"]


class Prediction(NamedTuple):
    """What a network says of examples.

    Attributes:
        logits: [..., n, outputs]; for regression the predicted values.
        embeddings: [..., n, embedding_size], the backbone's output; None if not computed.
        features: [..., n, *shape] of the stages that were asked for, by name.
    """

    logits: Tensor
    embeddings: Tensor | None = None
    features: Mapping[str, Tensor] = {}


def embed(
    backbone: nn.Module, examples: Tensor, stages: Collection[str] = (), *, adapted: bool = False
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return embeddings [n, embedding_size], and the features [n, *shape] of stages by name.

    Args:
        backbone: the network.
        examples: [n, *example].
        stages: whose features are wanted.
        adapted: examples are as the backbone expects them: hooks on its input are left out.
    """
    run = backbone.forward if adapted else backbone
    if not stages:
        return run(examples), {}
    with recorded_features(backbone, stages) as features:
        embeddings = run(examples)
    return embeddings, features


class Network(nn.Module):
    """A backbone and a linear head.

    Args:
        backbone: module with attribute `embedding_size` that maps [n, *example] to
            [n, embedding_size].
        outputs: number of logits (or regression outputs).
    """

    def __init__(self, backbone: nn.Module, outputs: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(int(backbone.embedding_size), outputs)  # type: ignore[arg-type]

    def forward(self, examples: Tensor, stages: Collection[str] = ()) -> Prediction:
        """Return logits [n, outputs], embeddings [n, embedding_size] and features of `stages`."""
        embeddings, features = embed(self.backbone, examples, stages)
        return Prediction(self.head(embeddings), embeddings, features)
