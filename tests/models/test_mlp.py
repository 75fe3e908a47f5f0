"""The fully connected network."""

from __future__ import annotations

import pytest
import torch

from metakd.errors import UserError
from metakd.models.mlp import MLP


def test_default_is_the_sinusoid_network() -> None:
    net = MLP((1,))
    assert sum(p.numel() for p in net.parameters()) == 80 + 40 * 41
    assert net.embedding_size == 40
    x = torch.randn(5, 1)
    hidden = torch.relu(net.layers[0](x))
    assert torch.equal(net(x), torch.relu(net.layers[1](hidden)))


@pytest.mark.parametrize(
    ("settings", "units"),
    [({"widths": [7, 5, 3]}, [7, 5, 3]), ({"width": 6, "depth": 3}, [6, 6, 6]), ({}, [40, 40])],
)
def test_layers(settings: dict, units: list[int]) -> None:
    assert [layer.out_features for layer in MLP((2,), **settings).layers] == units


@pytest.mark.parametrize("norm", ["batch", "group", "layer"])
def test_norms_and_images(norm: str) -> None:
    net = MLP((3, 4, 4), widths=[16, 8], norm=norm)
    assert net(torch.randn(6, 3, 4, 4)).shape == (6, 8)


def test_batch_norm_is_over_the_examples() -> None:
    net = MLP((2,), widths=[16], norm="batch").double()
    x = torch.randn(50, 2, dtype=torch.float64)
    z = net.layers[0](x)
    expected = torch.relu((z - z.mean(0)) / (z.var(0, correction=0) + 1e-5).sqrt())
    torch.testing.assert_close(net(x), expected)


@pytest.mark.parametrize("settings", [{"depth": 0}, {"widths": []}])
def test_no_layer_is_refused(settings: dict) -> None:
    with pytest.raises(UserError, match="at least one hidden layer"):
        MLP((1,), **settings)
