"""Whether a network draws random numbers, so that two passes over the same input differ."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from metakd.models.dropblock import DropBlock

__all__ = ["is_random"]


def is_random(network: nn.Module) -> bool:
    """Say whether dropout or DropBlock is active in `network` (in training, probability > 0)."""
    return any(
        module.training
        and (
            (isinstance(module, _DropoutNd) and module.p > 0)
            or (isinstance(module, DropBlock) and module.probability > 0)
        )
        for module in network.modules()
    )
