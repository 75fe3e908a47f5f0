"""Channels-last: the same values from another layout."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from metakd.models.conv4 import Conv4
from metakd.models.layout import lay_out_channels_last

LAST = torch.channels_last


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)], ids=["grey", "colour"])
def test_every_map_is_channels_last_and_values_stay(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    plain = Conv4(shape, width=8).double()
    net = copy.deepcopy(lay_out_channels_last(copy.deepcopy(plain)))
    seen: list[bool] = []

    def look(module: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        seen.append(out.is_contiguous(memory_format=LAST))

    for block in net.blocks[:3]:  # the last map is a single pixel or two
        block.conv.register_forward_hook(look)
    x = torch.randn(5, *shape, dtype=torch.float64)
    torch.testing.assert_close(net(x), plain(x), rtol=1e-9, atol=1e-12)
    assert seen == [True] * 3
    functional_call(net, {k: v - 0.1 for k, v in net.named_parameters()}, (x,))
    assert seen == [True] * 6


def test_under_vmap() -> None:
    net = lay_out_channels_last(Conv4((1, 28, 28), width=4)).eval()
    x = torch.randn(2, 3, 1, 28, 28)
    torch.testing.assert_close(vmap(net)(x), torch.stack([net(x[0]), net(x[1])]))
