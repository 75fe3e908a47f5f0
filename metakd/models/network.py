"""Backbone and head joined: images in, logits and embeddings out."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

__all__ = ["Network", "Prediction"]


class Prediction(NamedTuple):
    """What a network says of examples.

    Attributes:
        logits: [..., n, outputs]; for regression the predicted values.
        embeddings: [..., n, embedding_size], the backbone's output; None if not computed.
    """

    logits: Tensor
    embeddings: Tensor | None = None


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

    def forward(self, examples: Tensor) -> Prediction:
        """Return logits [n, outputs] and embeddings [n, embedding_size]."""
        embeddings = self.backbone(examples)
        return Prediction(self.head(embeddings), embeddings)
