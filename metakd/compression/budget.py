"""How small a network has to become, and the uniform strategy that is just small enough."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from metakd.compression.costs import Costs
from metakd.compression.layers import describe
from metakd.compression.measuring import measured
from metakd.compression.pruning import prune
from metakd.compression.quantize import quantizable_layers
from metakd.compression.strategy import FLOAT, Strategy
from metakd.errors import UserError

__all__ = ["Budget", "uniform"]

TRIALS = 12
"""Halvings of the range of keep ratios: closer than one channel in four thousand."""
TIMED_TRIALS = 6


@dataclass(frozen=True)
class Budget:
    """Shares of the original network's costs that the smaller one may have; None: any.

    Attributes:
        macs: multiply-adds of an example.
        parameters: number.
        bytes: of the saved weights, integers counted as such.
        latency: milliseconds of an example on this machine, of the float32 network.
    """

    macs: float | None = None
    parameters: float | None = None
    bytes: float | None = None
    latency: float | None = None

    @property
    def shares(self) -> dict[str, float]:
        """Return what is limited, by name."""
        named = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: share for name, share in named.items() if share is not None}


def uniform(
    backbone: nn.Module,
    examples: Tensor,
    budget: Budget,
    *,
    prunes: bool,
    bits: int = FLOAT,
    embedding: bool = False,
) -> Strategy:
    """Return the strategy that treats all layers alike and is just within a budget.

    Args:
        backbone: in evaluation mode; left as it is.
        examples: [n, *example], on the device where it lies.
        budget: what the result may cost.
        prunes: channels may go.
        bits: of the weights of all layers.
        embedding: the embedding may lose numbers, too.

    Raises:
        UserError: nothing is within the budget; says the smallest that can be reached.
    """
    widths = {} if bits == FLOAT else dict.fromkeys(quantizable_layers(backbone), bits)
    plain = Strategy().with_bits(bits, widths)
    shares = budget.shares
    whole = measured(backbone, examples, shares, {})
    if not prunes:
        _check(measured(backbone, examples, shares, widths), whole, shares, "quantize")
        return plain
    layers = describe(backbone, examples, embedding)
    if not any(layer.pruned_with for layer in layers):
        raise UserError(
            "compress: this network has no layer whose channels can go: all of them make its "
            "embedding; type compress.embedding=true, or compress=quantize"
        )

    def strategy(keep: float) -> Strategy:
        return plain.with_keep(
            {layer.name: keep for layer in layers if layer.pruned_with is not None}
        )

    costs = _counted(backbone, examples, budget, widths, embedding)
    if costs is None:

        def costs(keep: float) -> Mapping[str, float]:
            smaller = prune(copy.deepcopy(backbone), strategy(keep), examples, embedding=embedding)
            return measured(smaller, examples, shares, widths)

    def within(found: Mapping[str, float]) -> bool:
        return all(found[name] <= share * whole[name] for name, share in shares.items())

    least = 1e-6  # one channel everywhere
    _check(costs(least), whole, shares, "prune")
    low, high = least, 1.0
    for _ in range(TIMED_TRIALS if budget.latency is not None else TRIALS):
        middle = (low + high) / 2
        if within(costs(middle)):
            low = middle
        else:
            high = middle
    return strategy(low)


def _counted(
    backbone: nn.Module,
    examples: Tensor,
    budget: Budget,
    widths: Mapping[str, int],
    embedding: bool,
) -> Callable[[float], Mapping[str, float]] | None:
    """Return what a network costs by the share of channels that stay, without building it.

    None: time has to be measured, or its costs do not follow from its channels.
    """
    if budget.latency is not None:
        return None
    try:
        known = Costs(backbone, examples, embedding)
    except UserError:  # the slow way refuses what cannot be pruned at all
        return None
    bits = torch.tensor([[widths.get(name, FLOAT) for name in known.integers]])

    def costs(keep: float) -> Mapping[str, float]:
        kept = known.kept(torch.full((1, len(known.groups)), keep, dtype=torch.float64))
        return {n: float(c[0]) for n, c in known.count(kept, bits).items()}

    return costs


def _check(
    found: Mapping[str, float], whole: Mapping[str, float], shares: Mapping[str, float], how: str
) -> None:
    """Refuse a budget that even the smallest network exceeds.

    Raises:
        UserError: it does.
    """
    for name, share in shares.items():
        reached = found[name] / whole[name]
        if reached <= share:
            continue
        most = min(1.0, -(-reached * 1000 // 1) / 1000)
        if how == "quantize":
            also = "; compress=prune_quantize takes channels away, too"
            if name != "bytes":
                also = f", which integers do not change{also}"
        else:
            also = " with one channel left in each layer that can be pruned"
        raise UserError(
            f"compress.{name}={share:g}: the smallest share of the student's {name} that can be "
            f"reached is {most:g}{also}; type compress.{name}={most:g} or more"
        )
