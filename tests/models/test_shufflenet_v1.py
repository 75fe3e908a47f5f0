"""ShuffleNet V1."""

from __future__ import annotations

import pytest
import torch

from metakd.errors import UserError
from metakd.models.features import feature_shapes
from metakd.models.shufflenet_v1 import ShuffleNetV1, shuffled


def test_parameters_of_the_published_network() -> None:
    with torch.device("meta"):
        net = ShuffleNetV1((3, 32, 32))
    head = net.embedding_size * 100 + 100  # for 100 classes
    assert sum(p.numel() for p in net.parameters()) + head == 949_258


def test_channels_are_shuffled() -> None:
    maps = torch.arange(6.0).view(1, 6, 1, 1)
    assert shuffled(maps, 3).flatten().tolist() == [0, 2, 4, 1, 3, 5]


def test_stages() -> None:
    net = ShuffleNetV1((3, 16, 16), width=120)
    shapes = feature_shapes(net, ["stage1", "stage2", "stage3"], (3, 16, 16), "it")
    assert shapes == {"stage1": (120, 8, 8), "stage2": (240, 4, 4), "stage3": (480, 2, 2)}
    assert net(torch.randn(2, 3, 16, 16)).shape == (2, net.embedding_size) == (2, 480)


def test_width_has_to_fit_the_groups() -> None:
    with pytest.raises(UserError, match="the nearest: 240"):
        ShuffleNetV1((3, 32, 32), width=250)
