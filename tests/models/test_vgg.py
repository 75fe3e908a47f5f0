"""VGG with batch norm."""

from __future__ import annotations

import pytest
import torch

from metakd.errors import UserError
from metakd.models.features import feature_shapes
from metakd.models.vgg import VGG


@pytest.mark.parametrize(("depth", "published"), [(8, 3_965_028), (13, 9_462_180)])
def test_parameters_of_the_published_networks(depth: int, published: int) -> None:
    with torch.device("meta"):
        net = VGG((3, 32, 32), depth=depth)
    head = net.embedding_size * 100 + 100  # for 100 classes
    assert sum(p.numel() for p in net.parameters()) + head == published


@pytest.mark.parametrize(("size", "sides"), [(32, (32, 16, 8, 4, 4)), (64, (64, 32, 16, 8, 4))])
def test_stages_and_how_often_is_pooled(size: int, sides: tuple[int, ...]) -> None:
    net = VGG((3, size, size), depth=8, width=2)
    names = [f"stage{i + 1}" for i in range(5)]
    shapes = feature_shapes(net, names, (3, size, size), "it")
    expected = zip((2, 4, 8, 16, 16), sides, strict=True)
    assert [shapes[name] for name in names] == [(n, side, side) for n, side in expected]
    assert net(torch.randn(2, 3, size, size)).shape == (2, net.embedding_size) == (2, 16)


def test_depth_must_be_known() -> None:
    with pytest.raises(UserError, match=r"8, 11, 13, 16, 19; the nearest: 13"):
        VGG((3, 32, 32), depth=14)
