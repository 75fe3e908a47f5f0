"""The residual networks of CIFAR."""

from __future__ import annotations

import pytest
import torch

from metakd.errors import UserError
from metakd.models.features import feature_shapes
from metakd.models.resnet_cifar import ResNetCifar

WIDE = (32, 64, 128, 256)


@pytest.mark.parametrize(
    ("depth", "widths", "published"),
    [
        (20, None, 278_324),
        (56, None, 861_620),
        (110, None, 1_736_564),
        (8, WIDE, 1_233_540),
        (32, WIDE, 7_433_860),
    ],
)
def test_parameters_of_the_published_networks(
    depth: int, widths: tuple[int, ...] | None, published: int
) -> None:
    with torch.device("meta"):
        net = ResNetCifar((3, 32, 32), depth=depth, widths=widths)
    head = net.embedding_size * 100 + 100  # for 100 classes
    assert sum(p.numel() for p in net.parameters()) + head == published


def test_stages() -> None:
    net = ResNetCifar((3, 32, 32), depth=14, width=2)
    shapes = feature_shapes(net, ["stage1", "stage2", "stage3"], (3, 32, 32), "it")
    assert shapes == {"stage1": (2, 32, 32), "stage2": (4, 16, 16), "stage3": (8, 8, 8)}
    assert net(torch.randn(2, 3, 32, 32)).shape == (2, net.embedding_size) == (2, 8)
    assert [len(stage) for stage in net.stages] == [2, 2, 2]


@pytest.mark.parametrize(("depth", "nearest"), [(18, 20), (2, 8), (57, 56)])
def test_depth_must_be_6n_plus_2(depth: int, nearest: int) -> None:
    with pytest.raises(UserError, match=f"nearest that is: {nearest}"):
        ResNetCifar((3, 32, 32), depth=depth)
