"""What is done to each layer of a network to make it smaller, in plain values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["BITS", "FLOAT", "LayerChoice", "Strategy"]

FLOAT = 32
"""Bits of a layer that stays as it is."""
BITS = (2, 3, 4, 5, 6, 7, 8, FLOAT)
"""What a layer's weights may have; below 32 its activations are 8-bit integers."""


@dataclass(frozen=True)
class LayerChoice:
    """What is done to one layer.

    Attributes:
        keep: share of its output channels that stay, in (0, 1]; at least one channel does.
        bits: of its weights, one of `BITS`.

    Raises:
        ValueError: neither can be so.
    """

    keep: float = 1.0
    bits: int = FLOAT

    def __post_init__(self) -> None:
        if not (math.isfinite(self.keep) and 0 < self.keep <= 1):
            raise ValueError(f"keep={self.keep}: a share above 0 and at most 1")
        if self.bits not in BITS:
            raise ValueError(f"bits={self.bits}: one of {', '.join(map(str, BITS))}")


AS_IT_IS = LayerChoice()


@dataclass(frozen=True)
class Strategy:
    """A keep ratio and a bit width for each layer (method.md section 9).

    Layers that are not named stay as they are. Layers whose channels are added to each other keep
    the same ones: of them the `keep` of the first one (`LayerDescription.pruned_with`) counts.

    Attributes:
        layers: by name within the backbone (`blocks.0.conv`).
    """

    layers: Mapping[str, LayerChoice] = field(default_factory=dict)

    def of(self, layer: str) -> LayerChoice:
        """Return what is done to a layer."""
        return self.layers.get(layer, AS_IT_IS)

    @property
    def prunes(self) -> bool:
        """Whether any layer loses channels."""
        return any(choice.keep < 1 for choice in self.layers.values())

    @property
    def quantizes(self) -> bool:
        """Whether any layer becomes integers."""
        return any(choice.bits < FLOAT for choice in self.layers.values())

    def with_keep(self, keep: Mapping[str, float]) -> Strategy:
        """Return the same with other keep ratios for some layers."""
        changed = {n: LayerChoice(share, self.of(n).bits) for n, share in keep.items()}
        return Strategy({**self.layers, **changed})

    def with_bits(self, bits: int, layers: Iterable[str]) -> Strategy:
        """Return the same with another bit width for some layers."""
        changed = {n: LayerChoice(self.of(n).keep, bits) for n in layers}
        return Strategy({**self.layers, **changed})

    def plain(self) -> dict[str, dict[str, float]]:
        """Return plain values for JSON; `from_plain` reads them back."""
        return {
            name: {"keep": choice.keep, "bits": choice.bits} for name, choice in self.layers.items()
        }

    @classmethod
    def from_plain(cls, content: Any) -> Strategy:
        """Return what `plain` wrote.

        Raises:
            ValueError: it is something else.
        """
        if not isinstance(content, Mapping):
            raise ValueError("a strategy is an object of layers")
        layers = {}
        for name, given in content.items():
            if not isinstance(given, Mapping) or {*given} - {"keep", "bits"}:
                raise ValueError(f"layer '{name}' of the strategy: expected keep and bits")
            keep, bits = given.get("keep", 1.0), given.get("bits", FLOAT)
            numbers = isinstance(keep, int | float) and isinstance(bits, int)
            if not numbers or isinstance(keep, bool) or isinstance(bits, bool):
                raise ValueError(f"layer '{name}' of the strategy: keep and bits are numbers")
            layers[str(name)] = LayerChoice(float(keep), bits)
        return cls(layers)
