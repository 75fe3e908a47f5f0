"""Channels-last: the same values from another layout."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call, vmap

from metakd.models.conv4 import Conv4
from metakd.models.layout import lay_out_channels_last, on_plain_cpu

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


@pytest.mark.parametrize("channels", [1, 4, 12])
def test_strided_pointwise_convolutions_of_few_channels(channels: int) -> None:
    """Channels-last, oneDNN's gradient of their weights crashes or is wrong (`layout._guard`)."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, channels, 3), nn.Conv2d(channels, 8, 1, stride=2))
    exact = copy.deepcopy(network).double()
    strides: list[int] = []
    lay_out_channels_last(network)
    network[1].register_forward_pre_hook(lambda layer, given: strides.append(given[0].stride(1)))
    images = torch.randn(4, 3, 12, 12)
    network(images).square().sum().backward()
    exact(images.double()).square().sum().backward()
    assert strides == [100]  # the guard comes first: 10 x 10 pixels from one channel to the next
    assert network[1].weight.stride() == (channels, 1, 1, 1)
    for mine, true in zip(network.parameters(), exact.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, true.grad.float(), rtol=1e-4, atol=1e-4)


def test_what_an_exporter_traces_is_not_on_a_plain_cpu() -> None:
    assert on_plain_cpu(torch.ones(2))
    assert on_plain_cpu(nn.Parameter(torch.ones(2)))
    with FakeTensorMode():
        assert not on_plain_cpu(torch.ones(2))
