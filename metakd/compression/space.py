"""The strategies of one network that are just within a budget, as points of a plain space."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from metakd.compression.budget import Budget
from metakd.compression.costs import COUNTED, Costs
from metakd.compression.strategy import FLOAT, Strategy
from metakd.errors import UserError

__all__ = ["Candidates", "Space"]

HALVINGS = 26
FEWEST_BITS, MOST_BITS = 2, 8
BITS_A_STEP = 2.0
"""Bits that an offset of 1 is worth."""
SPREADS = (0.15, 0.4, 0.8, 1.2)
"""Standard deviations of random offsets: from nearly uniform to very uneven."""


@dataclass(frozen=True)
class Candidates:
    """Strategies within a budget.

    Attributes:
        kept: [n, groups] channels that stay.
        bits: [n, integers]; 32: real numbers.
    """

    kept: Tensor
    bits: Tensor

    def __len__(self) -> int:
        return len(self.kept)

    def __getitem__(self, index: Tensor | slice) -> Candidates:
        return Candidates(self.kept[index], self.bits[index])


@dataclass(frozen=True)
class Space:
    """Offsets of each group's keep ratio and of each layer's bits, brought within a budget.

    The logarithm of a group's keep ratio is its offset plus a shift that all groups share (without
    pruning: the bits are); the largest shift that is within the budget is found by bisection. All
    offsets 0: the uniform strategy.

    Attributes:
        costs: of the network.
        budget: what may be spent.
        prunes: channels may go.
        bits: of weights in the uniform strategy; 32: real numbers.
    """

    costs: Costs
    budget: Budget
    prunes: bool = True
    bits: int = FLOAT

    def __post_init__(self) -> None:
        if self.budget.latency is not None:
            raise UserError(
                "compress.latency: what a strategy takes is not known before it is measured, so "
                "strategies cannot be searched within it; type compress.macs=0.5 in its place, or "
                "compress.strategy=uniform"
            )
        if not self.prunes and self.budget.bytes is None:
            raise UserError(
                "compress=quantize: without a budget for bytes all layers have compress.bits; type "
                "compress.bytes=0.2, or compress.strategy=uniform"
            )

    @property
    def mixes_bits(self) -> bool:
        """Whether layers may have different bits: only bytes can be saved by them."""
        return self.bits < FLOAT and self.budget.bytes is not None

    @property
    def size(self) -> int:
        """Numbers of a point."""
        pruned = len(self.costs.groups) if self.prunes else 0
        return pruned + (len(self.costs.integers) if self.mixes_bits else 0)

    def within(self, found: Candidates) -> Tensor:
        """Tell which are within the budget, [n] bool."""
        bits = None if self.bits == FLOAT else found.bits
        counted = self.costs.count(found.kept, bits)
        limits = [counted[n] <= s * self.costs.whole[n] for n, s in self.budget.shares.items()]
        return torch.stack(limits).all(0)

    def project(self, offsets: Tensor) -> Candidates:
        """Return the candidates that offsets stand for; none is dearer than the budget.

        Offsets that no shift brings within it stand for the uniform strategy.

        Args:
            offsets: [n, size].

        Raises:
            UserError: the uniform strategy cannot be brought within the budget.
        """
        offsets = offsets.double()
        low = offsets.new_full((len(offsets),), -30.0)
        high = offsets.new_full((len(offsets),), 30.0)
        # What no shift brings within the budget becomes the uniform strategy.
        offsets = offsets * self.within(self._at(offsets, low))[:, None]
        if not self.within(self._at(offsets, low)).all():
            raise UserError(
                f"compress: no strategy is within {self._words()}; compress.strategy=uniform says "
                "the smallest share that can be reached"
            )
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            fits = self.within(self._at(offsets, middle))
            low, high = torch.where(fits, middle, low), torch.where(fits, high, middle)
        return self._at(offsets, low)

    def uniform(self) -> Candidates:
        """Return the uniform strategy."""
        return self.project(torch.zeros(1, self.size))

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Candidates]:
        """Return random offsets [n, size] and their candidates; see `SPREADS`."""
        spread = torch.tensor(SPREADS)[torch.arange(count) % len(SPREADS)]
        offsets = spread[:, None] * torch.randn(count, self.size, generator=generator)
        return offsets, self.project(offsets)

    def strategy(self, found: Candidates, index: int = 0) -> Strategy:
        """Return a candidate in plain values."""
        bits = None if self.bits == FLOAT else found.bits[index].tolist()
        return self.costs.strategy(found.kept[index], bits)

    def _at(self, offsets: Tensor, shift: Tensor) -> Candidates:
        costs, pruned = self.costs, len(self.costs.groups) if self.prunes else 0
        kept = costs.channels.expand(len(offsets), -1)
        bits = torch.full((len(offsets), len(costs.integers)), self.bits)
        if self.prunes:
            keep = (offsets[:, :pruned] + shift[:, None]).clamp(max=0.0).exp()
            kept = costs.kept(keep)
        if self.mixes_bits:
            wanted = self.bits + BITS_A_STEP * offsets[:, pruned:]
            if not self.prunes:
                wanted = wanted + shift[:, None]
            bits = wanted.round().clamp(FEWEST_BITS, MOST_BITS).long()
        return Candidates(kept, bits)

    def _words(self) -> str:
        said = [f"compress.{n}={s:g}" for n, s in self.budget.shares.items() if n in COUNTED]
        return " and ".join(said)
