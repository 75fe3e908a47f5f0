"""Matching networks: attention by hand, what the scale does, what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from metakd.algorithms.matching import MatchingNet
from metakd.errors import UserError


def test_attention_by_hand() -> None:
    """Cosines of (1, 0) to (1, 0), (0, 1), (-1, 0) are 1, 0, -1; γ = ln 2: shares 2 : 1 : 1/2."""
    net = MatchingNet(nn.Identity(), scale=math.log(2.0))
    support = torch.tensor([[[3.0, 0.0], [0.0, 2.0], [-1.0, 0.0]]])
    logits = net.classify(support, torch.tensor([[0, 1, 1]]), torch.tensor([[[5.0, 0.0]]]), 2)
    torch.testing.assert_close(logits.softmax(-1), torch.tensor([[[2.0, 1.5]]]) / 3.5)


def test_a_class_counts_all_its_examples() -> None:
    """Two like examples of a class have twice the attention of one."""
    net = MatchingNet(nn.Identity(), scale=5.0)
    support = torch.tensor([[[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]])
    logits = net.classify(support, torch.tensor([[0, 1, 1]]), torch.tensor([[[1.0, 0.0]]]), 2)
    torch.testing.assert_close(logits.softmax(-1), torch.tensor([[[1.0, 2.0]]]) / 3)


@pytest.mark.parametrize("scale", [0.0, -1.0, math.inf, math.nan])
def test_refuses(scale: float) -> None:
    with pytest.raises(UserError, match=r"algorithm.options.scale=.*type .*scale=10"):
        MatchingNet(nn.Identity(), scale=scale)
