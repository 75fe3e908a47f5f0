"""A strategy carried out on a trained network."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from metakd.compression.pruning import prune
from metakd.compression.quantize import freeze, quantize, recalibrate
from metakd.compression.strategy import Strategy

__all__ = ["apply"]


def apply(
    backbone: nn.Module,
    strategy: Strategy,
    batches: Iterable[Tensor],
    *,
    gradients: Mapping[str, Tensor] | None = None,
    embedding: bool = False,
) -> nn.Module:
    """Return a smaller copy of a network: pruned, batch norm recalibrated, then integers.

    Nothing is trained in between; the parts are there for a pipeline that does
    (`prune`, `recalibrate`, `quantize`, `freeze`). `structure_of` says how it is built again.

    Args:
        backbone: trained; left as it is.
        strategy: what is done to each layer.
        batches: examples [n, *example] of the data that it was trained on, on its device.
        gradients: see `prune`.
        embedding: see `prune`.

    Raises:
        UserError: the network cannot be pruned, or the library is missing.
        ValueError: the strategy names a layer that there is not; an activation is not finite.
    """
    shown = list(batches)
    smaller = copy.deepcopy(backbone).eval()
    if strategy.prunes:
        prune(smaller, strategy, shown[0][:2], gradients=gradients, embedding=embedding)
        recalibrate(smaller, shown)
    if strategy.quantizes:
        smaller = freeze(quantize(smaller, strategy, shown))
    return smaller
