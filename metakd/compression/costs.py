"""What pruned networks cost, counted from how many channels stay: thousands of strategies at once.

Multiply-adds, parameters and bytes of a layer are products of its outputs and inputs that stay, so
that no network has to be built to know what a strategy costs.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from metakd.compression.layers import PruningGraph, describe
from metakd.compression.measuring import measured
from metakd.compression.pruning import prune
from metakd.compression.quantize import folded, quantizable_layers
from metakd.compression.quantized import PACKED
from metakd.compression.strategy import FLOAT, LayerChoice, Strategy
from metakd.errors import UserError
from metakd.models.cost import saved_bytes

__all__ = ["COUNTED", "Costs"]

COUNTED = ("macs", "parameters", "bytes")
RANGE = 5.0
"""Bytes of the scale and zero point of an activation."""


class Costs:
    """Costs of one network's strategies.

    A strategy is the channels that stay of each group (layers that lose the same ones) and the
    bits of each layer that can be integers.

    Args:
        backbone: in evaluation mode; left as it is.
        examples: [n, *example], for one pass.
        embedding: the embedding may lose numbers, too.

    Attributes:
        layers: `describe`'s.
        groups: name of the first layer of each group.
        channels: [groups] float64, of the whole network.
        parts: [groups], equal parts of its channels that lose as many each.
        integers: names of the layers that can be integers.
        whole: costs of the network itself, by name.
        output_of: [layers] the group that a layer's output channels are; -1: they stay.
        input_of: [layers, groups] share of a layer's inputs that come from a group.

    Raises:
        UserError: as `PruningGraph`; this network's costs do not follow from its channels.
    """

    def __init__(self, backbone: nn.Module, examples: Tensor, embedding: bool = False) -> None:
        self.layers = describe(backbone, examples, embedding)
        graph = PruningGraph(backbone, examples, embedding)
        self.groups = tuple(graph.groups)
        sizes = [len(group[0].idxs) for group in graph.groups.values()]
        self.channels = torch.tensor(sizes, dtype=torch.float64)
        parts = [graph.channel_groups(group) for group in graph.groups.values()]
        self.parts = torch.tensor(parts, dtype=torch.float64)
        self.integers = tuple(quantizable_layers(backbone))
        self.whole = measured(backbone, examples, dict.fromkeys(COUNTED, 1.0), {})
        self.embedding = embedding
        outputs: dict[str, int] = {}
        inputs: dict[str, dict[int, int]] = {}
        for g, group in enumerate(graph.groups.values()):
            for dep, indices in group:
                module = dep.target.module
                if module not in graph.names:
                    continue
                name = graph.names[module]
                if graph.graph.is_out_channel_pruning_fn(dep.handler):
                    outputs[name] = g
                else:
                    inputs.setdefault(name, {})[g] = len(indices)
        self.output_of = torch.tensor([outputs.get(layer.name, -1) for layer in self.layers])
        self.input_of = torch.zeros(len(self.layers), len(self.groups), dtype=torch.float64)
        for i, layer in enumerate(self.layers):
            for g, count in inputs.get(layer.name, {}).items():
                if layer.groups == 1:
                    self.input_of[i, g] = count / layer.inputs
        # Of everything else that has parameters, such as norms, all tensors follow the channels.
        own = {layer.name for layer in self.layers}
        self._tied = torch.zeros(len(self.groups), 2, dtype=torch.float64)
        for name, module in backbone.named_modules():
            if name in own or name not in outputs:
                continue
            for tensors, column in ((module.parameters(False), 0), (module.buffers(False), 1)):
                for tensor in tensors:
                    if tensor.dim():
                        self._tied[outputs[name], column] += tensor.numel()
        modules = dict(backbone.named_modules())
        weights, biases = [], []
        for layer in self.layers:
            module = modules[layer.name]
            assert isinstance(module.weight, Tensor)
            weights.append(module.weight.numel())
            biases.append(0 if module.bias is None else layer.outputs)
        self._weights = torch.tensor(weights, dtype=torch.float64)
        self._biases = torch.tensor(biases, dtype=torch.float64)
        self._macs = torch.tensor([layer.macs for layer in self.layers], dtype=torch.float64)
        self._outputs = torch.tensor([n.outputs for n in self.layers], dtype=torch.float64)
        self._bytes = float(saved_bytes(backbone))
        # Of the batch norm that becomes part of each layer that is integers: bytes of its tensors.
        self._folded = torch.zeros(2, len(self.layers), dtype=torch.float64)
        places = {layer.name: i for i, layer in enumerate(self.layers)}
        for norm, before in folded(backbone, self.integers, examples).items():
            for tensor in modules[norm].state_dict().values():
                size = 4 * tensor.numel() if tensor.dim() else tensor.element_size()
                self._folded[0 if tensor.dim() else 1, places[before]] += size
        self._check(backbone, examples)

    def kept(self, keep: Tensor) -> Tensor:
        """Return how many channels stay, [n, groups] float64, as `kept_channels` rounds.

        Args:
            keep: [n, groups], shares.
        """
        each = self.channels / self.parts
        return self.parts * torch.round(keep * each).clamp(min=1.0).minimum(each)

    def shares(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        """Return the shares of each layer's outputs and inputs that stay, [n, layers] each."""
        keep = kept / self.channels
        padded = torch.cat([keep, keep.new_ones(len(keep), 1)], dim=1)
        inputs = 1.0 - (1.0 - keep) @ self.input_of.T
        return padded[:, self.output_of], inputs

    def count(self, kept: Tensor, bits: Tensor | None = None) -> dict[str, Tensor]:
        """Return the costs of strategies by name, [n] float64 each.

        Args:
            kept: [n, groups] channels that stay.
            bits: [n, integers] of weights; None: real numbers.
        """
        outputs, inputs = self.shares(kept)
        weights, biases = self._weights * outputs * inputs, self._biases * outputs
        tied = kept / self.channels
        lost_tied = (1.0 - tied) @ self._tied
        lost = (self._weights - weights).sum(1) + (self._biases - biases).sum(1)
        parameters = self.whole["parameters"] - lost - lost_tied[:, 0]
        stored = self._bytes - 4.0 * (lost + lost_tied.sum(1))
        if bits is not None:
            places = [i for i, layer in enumerate(self.layers) if layer.name in self.integers]
            numbers, channels = weights[:, places].round(), (self._outputs * outputs)[:, places]
            packed = torch.where(bits > PACKED, numbers, torch.ceil(numbers / 2))
            norms = self._folded[0, places] * outputs[:, places] + self._folded[1, places]
            before = 4.0 * (numbers + biases[:, places]) + norms
            # A scale and a bias of each channel, the ranges of what comes in and goes out.
            saved = before - packed - 8.0 * channels - 2.0 * RANGE
            integer = bits < FLOAT
            stored = stored - torch.where(integer, saved, 0.0).sum(1) + RANGE * integer.any(1)
        macs = (self._macs * outputs * inputs).sum(1) + self.whole["macs"] - self._macs.sum()
        return {"macs": macs, "parameters": parameters, "bytes": stored}

    def strategy(self, kept: Tensor, bits: Sequence[int] | None = None) -> Strategy:
        """Return one strategy in plain values.

        Args:
            kept: [groups] channels that stay.
            bits: of each layer that can be integers; None: real numbers.
        """
        shares = (kept / self.channels).tolist()
        keep = dict(zip(self.groups, shares, strict=True))
        widths = {} if bits is None else dict(zip(self.integers, bits, strict=True))
        named = [layer.name for layer in self.layers if layer.name in {*keep, *widths}]
        return Strategy(
            {n: LayerChoice(keep.get(n, 1.0), int(widths.get(n, FLOAT))) for n in named}
        )

    def read(self, strategy: Strategy) -> tuple[Tensor, Tensor]:
        """Return the channels that stay [groups] and the bits [integers] of a strategy."""
        keep = torch.tensor([strategy.of(n).keep for n in self.groups], dtype=torch.float64)
        bits = torch.tensor([strategy.of(n).bits for n in self.integers])
        return self.kept(keep[None])[0], bits

    def _check(self, backbone: nn.Module, examples: Tensor) -> None:
        """Compare with a network that is pruned unevenly."""
        spread = [0.3 + 0.6 * ((7 * g) % 5) / 4 for g in range(len(self.groups))]
        kept = self.kept(torch.tensor([spread], dtype=torch.float64))
        smaller = copy.deepcopy(backbone)
        prune(smaller, self.strategy(kept[0]), examples, embedding=self.embedding)
        widths = torch.tensor([[8 - 4 * (i % 2) for i in range(len(self.integers))]])
        for bits in (None, widths):
            named = {} if bits is None else dict(zip(self.integers, bits[0].tolist(), strict=True))
            found = measured(smaller, examples, dict.fromkeys(COUNTED, 1.0), named)
            if _same({n: float(c[0]) for n, c in self.count(kept, bits).items()}, found):
                continue
            raise UserError(
                "compress.strategy: the costs of this network do not follow from the channels that "
                "stay, so strategies cannot be searched; type compress.strategy=uniform"
            )


def _same(counted: Mapping[str, float], found: Mapping[str, float]) -> bool:
    return all(math.isclose(counted[n], found[n], rel_tol=1e-9, abs_tol=0.5) for n in COUNTED)
