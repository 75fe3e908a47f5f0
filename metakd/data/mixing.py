"""Mixup (Zhang et al. 2018): a batch's examples mixed with each other, and what they are then."""

from __future__ import annotations

import random
from dataclasses import replace

from torch import Tensor

from metakd.data.counter_random import permutation, stream_key
from metakd.data.tasks import ExampleBatch

__all__ = ["mixed_batch", "partners_of", "share_of"]


def share_of(alpha: float, key: int) -> float:
    """Return the share of an example itself, ½ … 1: max(λ, 1 - λ) of λ ~ Beta(alpha, alpha).

    As partners are drawn at random, λ and 1 - λ give the same mixtures; the larger one lets the
    example's own label be that of the larger part.
    """
    own = random.Random(key).betavariate(alpha, alpha)
    return max(own, 1.0 - own)


def partners_of(batch: ExampleBatch, key: int) -> Tensor:
    """Return the position in the batch of the example that each is mixed with, [n] int64."""
    return permutation(stream_key(key, "partners"), len(batch), batch.labels.device)


def mixed_batch(batch: ExampleBatch, alpha: float, key: int) -> ExampleBatch:
    """Return the batch with its mixtures: share · example + (1 - share) · partner.

    Args:
        batch: the examples.
        alpha: of the Beta distribution, above 0.
        key: decides partners and share.
    """
    share, order = share_of(alpha, key), partners_of(batch, key)
    mixed = share * batch.examples + (1.0 - share) * batch.examples[order]
    return replace(batch, mixed=mixed, partners=batch.labels[order], share=share)
