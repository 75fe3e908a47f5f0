"""A trained network in numbers: its layers, and what each of them bears."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from metakd.compression.costs import Costs
from metakd.compression.pruning import prune
from metakd.compression.quantize import recalibrate, running
from metakd.compression.space import Candidates
from metakd.compression.strategy import FLOAT
from metakd.models.normalization import (
    has_batchnorm,
    has_running_statistics,
    set_running_statistics,
)

__all__ = ["FEATURES", "NetworkDescription", "describe_network"]

LEVELS = (0.5, 0.2)
"""Keep ratios at which each group is pruned alone."""
WIDTHS = tuple(range(2, 9))
"""Bits at which each layer's weights are rounded alone."""
FEATURES = 10
"""Numbers of a layer together with what is done to it."""
VERSION = 1
"""Of what a table keeps of a network."""


@dataclass(frozen=True)
class NetworkDescription:
    """A trained network in numbers that are comparable between networks.

    Attributes:
        outputs: [layers] channels or features.
        group: [layers] the group that a layer's outputs are; -1: none.
        inputs: [layers, groups] share of its inputs that come from a group.
        channels: [groups].
        damage: [groups, LEVELS] what happens to the embeddings of a few examples if this group
            alone is pruned: 1 - CKA (Kornblith et al., 2019) to the whole network's.
        magnitude: [groups, LEVELS] share of the squared weights that is lost.
        rounding: [layers, WIDTHS] relative error of the weights.
        integers: [layers] position among the layers that can be integers; -1: it cannot.
    """

    outputs: Tensor
    group: Tensor
    inputs: Tensor
    channels: Tensor
    damage: Tensor
    magnitude: Tensor
    rounding: Tensor
    integers: Tensor

    def plain(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {f.name: getattr(self, f.name).tolist() for f in fields(self)}

    @classmethod
    def from_plain(cls, content: Any) -> NetworkDescription:
        """Return what `plain` wrote."""
        whole = ("group", "integers")
        return cls(
            **{
                f.name: torch.tensor(
                    content[f.name], dtype=torch.long if f.name in whole else torch.float64
                )
                for f in fields(cls)
            }
        )

    def features(self, found: Candidates) -> Tensor:
        """Return what each layer is and what is done to it, [n, layers, FEATURES] float32."""
        keep = found.kept / self.channels
        none = keep.new_ones(len(keep), 1)
        outputs = torch.cat([keep, none], 1)[:, self.group]
        inputs = 1.0 - (1.0 - keep) @ self.inputs.T
        zero = 0.0 * none
        damage = torch.cat([_between(keep, self.damage), zero], 1)[:, self.group]
        magnitude = torch.cat([_between(keep, self.magnitude), zero], 1)[:, self.group]
        real = torch.full((len(keep), 1), FLOAT)
        bits = torch.cat([found.bits, real], 1)[:, self.integers].double()
        widths = (bits.clamp(max=WIDTHS[-1]) - WIDTHS[0]).long()
        error = self.rounding.expand(len(keep), -1, -1).gather(2, widths[..., None])[..., 0]
        error = torch.where(bits < FLOAT, error, 0.0)
        chosen = [outputs, outputs.log(), inputs, damage, damage.sqrt(), magnitude, error]
        channels = torch.cat([found.kept, none], 1)[:, self.group]
        stay = torch.where(self.group < 0, self.outputs.log(), channels.log())
        chosen += [torch.where(bits < FLOAT, bits / 8, 2.0), stay, -(-stay).exp()]
        return torch.stack(chosen, -1).float()


def describe_network(
    backbone: nn.Module, costs: Costs, batches: Sequence[Tensor]
) -> NetworkDescription:
    """Describe a trained network; each group is pruned alone, at each of `LEVELS`.

    Args:
        backbone: in evaluation mode; left as it is.
        costs: its costs.
        batches: examples [n, *example] on its device.
    """
    layers, groups = costs.layers, costs.groups
    modules = dict(backbone.named_modules())
    members = costs.output_of.tolist()
    rounding = [
        [_rounding(modules[layer.name].weight, bits) for bits in WIDTHS] for layer in layers
    ]
    before = _embedded(copy.deepcopy(backbone), batches)
    damage = [
        [_damage(backbone, costs, g, level, batches, before) for level in LEVELS]
        for g in range(len(groups))
    ]
    magnitude = []
    for g in range(len(groups)):
        weights = [modules[n.name].weight for n, m in zip(layers, members, strict=True) if m == g]
        norms = sum(w.detach().double().cpu().flatten(1).square().sum(1) for w in weights)
        assert isinstance(norms, Tensor)
        lost = norms.sort().values.cumsum(0) / norms.sum().clamp_min(1e-30)
        gone = [len(norms) - max(1, round(level * len(norms))) for level in LEVELS]
        magnitude.append([float(lost[n - 1]) if n else 0.0 for n in gone])
    places = [costs.integers.index(n.name) if n.name in costs.integers else -1 for n in layers]
    return NetworkDescription(
        outputs=torch.tensor([n.outputs for n in layers], dtype=torch.float64),
        group=costs.output_of,
        inputs=costs.input_of,
        channels=costs.channels,
        damage=torch.tensor(damage, dtype=torch.float64),
        magnitude=torch.tensor(magnitude, dtype=torch.float64),
        rounding=torch.tensor(rounding, dtype=torch.float64),
        integers=torch.tensor(places),
    )


def _between(keep: Tensor, curve: Tensor) -> Tensor:
    """Read [groups, LEVELS] curves at [n, groups] keep ratios, straight between the levels."""
    points = [1.0, *LEVELS, 0.0]
    values = torch.cat([0.0 * curve[:, :1], curve, curve[:, -1:]], 1)
    found = torch.zeros_like(keep)
    for i, (high, low) in enumerate(pairwise(points)):
        part = ((high - keep) / (high - low)).clamp(0.0, 1.0)
        found = found + part * (values[:, i + 1] - values[:, i])
    return found.clamp_min(0.0)


def _rounding(weight: Tensor, bits: int) -> float:
    rows = weight.detach().flatten(1)
    most = 2 ** (bits - 1) - 1
    scales = (rows.abs().amax(1, keepdim=True) / most).clamp_min(1e-12)
    rounded = torch.round(rows / scales).clamp(-most, most) * scales
    return float((rounded - rows).norm() / rows.norm().clamp_min(1e-12))


def _embedded(network: nn.Module, batches: Sequence[Tensor]) -> Tensor:
    """Return centred embeddings [n, size] in float64; batch norm is recalibrated, in place."""
    if has_batchnorm(network) and not has_running_statistics(network):
        set_running_statistics(network, True)
    recalibrate(network, batches)
    with running(network):
        found = torch.cat([network(batch) for batch in batches]).double()
    return found - found.mean(0)


def _damage(
    backbone: nn.Module,
    costs: Costs,
    group: int,
    level: float,
    batches: Sequence[Tensor],
    before: Tensor,
) -> float:
    keep = torch.ones(1, len(costs.groups), dtype=torch.float64)
    keep[0, group] = level
    smaller = copy.deepcopy(backbone)
    strategy = costs.strategy(costs.kept(keep)[0])
    prune(smaller, strategy, batches[0][:2], embedding=costs.embedding)
    after = _embedded(smaller, batches)
    cross = (before.T @ after).square().sum()
    own = (before.T @ before).norm() * (after.T @ after).norm()
    return max(0.0, 1.0 - float(cross / own.clamp_min(1e-30)))
