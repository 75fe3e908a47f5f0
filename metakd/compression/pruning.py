"""Structured pruning: whole channels are taken away, by the dependency graph of the network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from metakd.compression.layers import CANNOT, PruningGraph
from metakd.compression.strategy import Strategy
from metakd.errors import UserError

__all__ = ["IMPORTANCES", "kept_channels", "prune"]

IMPORTANCES = ("magnitude", "taylor")
"""How it is decided which channels go: the smallest weights; the smallest first-order change of
the loss, |weight · gradient| (Molchanov et al., 2019)."""


def kept_channels(channels: int, keep: float, parts: int = 1) -> int:
    """Return how many channels stay of so many, at least one in each of equal `parts`."""
    each = channels // parts
    return parts * max(1, min(each, round(keep * each)))


def prune(
    backbone: nn.Module,
    strategy: Strategy,
    examples: Tensor,
    *,
    gradients: Mapping[str, Tensor] | None = None,
    embedding: bool = False,
) -> nn.Module:
    """Take channels away from a network, in place; return it.

    Args:
        backbone: in evaluation mode, with attribute `embedding_size`.
        strategy: the share of each layer's channels that stays.
        examples: [n, *example], for one pass.
        gradients: of the loss, by name of a parameter: importance is Taylor's; None: magnitude.
        embedding: the embedding may lose numbers, too.

    Raises:
        UserError: the library is missing or cannot follow this network.
        ValueError: the strategy names a layer that there is not.
    """
    graph = PruningGraph(backbone, examples, embedding)
    unknown = {*strategy.layers} - {*graph.names.values()}
    if unknown:
        raise ValueError(f"the strategy names a layer '{min(unknown)}' that there is not")
    of_library = graph.library.importance
    importance = of_library.GroupMagnitudeImportance(p=2)
    if gradients is not None:
        importance = of_library.GroupTaylorImportance()
        for name, parameter in backbone.named_parameters():
            # What the loss does not depend on got none: to take it away changes nothing.
            found = gradients.get(name)
            parameter.grad = torch.zeros_like(parameter) if found is None else found.clone()
        for parameter in graph.probe.head.parameters():
            parameter.grad = torch.zeros_like(parameter)
    # All scores first: what is taken from one layer must not change the order in the next.
    gone: list[tuple[Any, list[int]]] = []
    for name, group in graph.groups.items():
        keep = strategy.of(name).keep
        if keep < 1:
            gone.append((group, _least(graph, group, importance(group), keep)))
    for group, channels in gone:
        root = group[0].dep
        if channels:
            whole = graph.graph.get_pruning_group(root.target.module, root.handler, channels)
            whole.prune()
    for parameter in backbone.parameters():
        parameter.grad = None
    if embedding:
        backbone.embedding_size = graph.probe.head.in_features  # type: ignore[assignment]
        shape = getattr(backbone, "map_shape", None)
        if shape is not None:
            pixels = shape[1] * shape[2]
            backbone.map_shape = (backbone.embedding_size // pixels, *shape[1:])  # type: ignore
    try:
        with torch.no_grad():
            embedded = backbone(examples[:1])
        fits = embedded.shape[-1] == backbone.embedding_size
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(
            f"{CANNOT}: with fewer channels it does not run ({reason}); type compress=quantize or "
            "another student"
        ) from error
    if not fits:
        raise UserError(f"{CANNOT}: its embedding would change; type another student")
    return backbone


def _least(graph: PruningGraph, group: Any, scores: Tensor, keep: float) -> list[int]:
    """Return the channels of the smallest importance, as many in each part of a group."""
    parts = graph.channel_groups(group)
    each = len(scores) // parts
    lost = each - kept_channels(len(scores), keep, parts) // parts
    mean = scores.detach().cpu().view(parts, each).mean(0)
    chosen = torch.argsort(mean, stable=True)[:lost].tolist()
    return sorted(int(c) + part * each for part in range(parts) for c in chosen)
