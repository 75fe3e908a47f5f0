"""A network by depth: the stages of its backbone in order, and its head."""

from __future__ import annotations

from torch import nn

from metakd.models.features import stages_of
from metakd.models.network import Network

__all__ = ["by_depth", "rate_factors"]


def by_depth(network: Network) -> list[list[nn.Module]]:
    """Return the modules of each stage, from the input to the head, each module once.

    A module outside all stages counts with the stage before it; with the first one where there is
    none. A stage without parameters counts with the one before it.
    """
    backbone = network.backbone
    paths = list(stages_of(backbone).values())
    depths: list[list[nn.Module]] = [[]]
    begun: set[str] = set()
    for name, module in backbone.named_modules():
        stage = next((p for p in paths if name == p or name.startswith(f"{p}.")), None)
        if stage is not None and stage not in begun:
            if begun and any(True for _ in backbone.get_submodule(stage).parameters()):
                depths.append([])
            begun.add(stage)
        depths[-1].append(module)
    return [*depths, [network.head]]


def rate_factors(depths: list[list[nn.Module]], decay: float) -> dict[int, float]:
    """Return the factor on the learning rate of each parameter, by its id.

    It is 1 for the head and `decay` times less for each stage before it (Howard & Ruder, 2018,
    who take 1 / 2.6).

    Args:
        depths: see `by_depth`.
        decay: above 0; 1: all have the same rate.
    """
    last = len(depths) - 1
    return {
        id(parameter): decay ** (last - depth)
        for depth, modules in enumerate(depths)
        for module in modules
        for parameter in _parameters(module)
    }


def _parameters(module: nn.Module) -> list[nn.Parameter]:
    return list(module.parameters(recurse=False))
