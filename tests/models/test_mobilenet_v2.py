"""MobileNetV2 at half its width."""

from __future__ import annotations

import torch

from metakd.models.features import feature_shapes
from metakd.models.mobilenet_v2 import MobileNetV2


def test_parameters_of_the_published_network() -> None:
    with torch.device("meta"):
        net = MobileNetV2((3, 32, 32))
    head = net.embedding_size * 100 + 100  # for 100 classes
    assert sum(p.numel() for p in net.parameters()) + head == 812_836


def test_stages() -> None:
    net = MobileNetV2((3, 32, 32), width=4)
    names = [f"stage{i + 1}" for i in range(4)]
    shapes = feature_shapes(net, names, (3, 32, 32), "it")
    assert list(shapes.values()) == [(3, 16, 16), (4, 8, 8), (12, 4, 4), (40, 2, 2)]
    assert net(torch.randn(2, 3, 32, 32)).shape == (2, net.embedding_size) == (2, 320)
