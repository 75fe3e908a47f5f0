"""Initial weights of residual networks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from metakd.models.residual import he_initialise


@pytest.mark.parametrize(("groups", "fan"), [(1, 256 * 9), (4, 64 * 9), (256, 9)])
def test_the_fan_is_that_of_a_group(groups: int, fan: int) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(256, 256, 3, groups=groups)
    he_initialise(layer)
    assert layer.weight.std().item() == pytest.approx((2 / fan) ** 0.5, rel=0.05)
    assert not layer.bias.any()


def test_depthwise_filters_keep_the_size_of_gradients() -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(*[nn.Conv2d(64, 64, 3, padding=1, groups=64) for _ in range(6)])
    he_initialise(layers, slope=1.0)  # no ReLU follows
    x = torch.randn(8, 64, 16, 16, requires_grad=True)
    out = layers(x)
    out.backward(torch.randn_like(out))
    # Borders take a little of it each time; with the fan of all channels it would be 64⁻³.
    assert 0.3 < x.grad.std().item() < 1.5


def test_without_groups_numbers_are_those_of_torch() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(5, 7, 3)
    torch.manual_seed(1)
    he_initialise(layer, 0.1)
    torch.manual_seed(1)
    expected = nn.init.kaiming_normal_(
        torch.empty(7, 5, 3, 3), a=0.1, mode="fan_out", nonlinearity="leaky_relu"
    )
    assert torch.equal(layer.weight, expected)
