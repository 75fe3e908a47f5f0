"""`algorithm=metabaseline`: a pre-trained embedding, tuned over episodes by the cosine to means."""

from __future__ import annotations

import math

import torch
from torch import nn

from metakd.algorithms.protonet import ProtoNet
from metakd.errors import UserError

__all__ = ["MetaBaseline"]


class MetaBaseline(ProtoNet):
    """Meta-Baseline (Chen et al., 2021, "Exploring simple meta-learning for few-shot learning").

    Logits are γ cos(embed(x), c_k), c_k the mean embedding of class k's support and γ learned:
    prototypical networks with the cosine, from a backbone that was trained on whole batches of
    the meta-train classes first (`warmstart`, or a checkpoint; refused without).

    Args:
        backbone: the student's.
        outputs: not needed: training may use more ways than evaluation.
        scale: γ at first; published 10.

    Raises:
        UserError: the scale is not positive.
    """

    scale: nn.Parameter

    def __init__(self, backbone: nn.Module, outputs: int = 0, *, scale: float = 10.0) -> None:
        super().__init__(backbone, outputs, distance="cosine")
        if not 0.0 < scale < math.inf:
            raise UserError(
                f"algorithm.options.scale={scale:g}: must be above 0; "
                "type algorithm.options.scale=10, the published value"
            )
        with torch.no_grad():
            self.scale.fill_(scale)
