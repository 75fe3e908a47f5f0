"""ResNet-12: both published variants, and the dropout between its blocks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from metakd.errors import UserError
from metakd.models.dropblock import DropBlock
from metakd.models.resnet12 import ResNet12


@pytest.mark.parametrize(
    ("settings", "millions", "size"),
    [
        ({}, 12.42, 640),
        ({"variant": "plain"}, 8.00, 512),
        ({"widths": [32, 64, 128, 256]}, 2.00, 256),
        ({"variant": "plain", "width": 32}, 2.00, 256),
    ],
)
def test_published_parameter_counts(settings: dict, millions: float, size: int) -> None:
    with torch.device("meta"):
        net = ResNet12((3, 84, 84), **settings)
    assert round(sum(p.numel() for p in net.parameters()) / 1e6, 2) == millions
    assert net.embedding_size == size


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 84, 84)])
def test_shapes(shape: tuple[int, ...]) -> None:
    net = ResNet12(shape, widths=[4, 6, 8, 10], dropout=0.1)
    assert net(torch.randn(2, *shape)).shape == (2, 10)
    assert net.blocks[3].dropout.size == (5 if shape[1] == 84 else 2)


def test_dropout_only_where_it_is_published_and_only_in_training() -> None:
    torch.manual_seed(0)
    net = ResNet12((3, 32, 32), widths=[4, 6, 8, 10], dropout=0.5)
    assert [type(b.dropout) for b in net.blocks] == [nn.Dropout, nn.Dropout, DropBlock, DropBlock]
    x = torch.randn(2, 3, 32, 32)
    assert not torch.equal(net(x), net(x))
    net.eval()
    assert torch.equal(net(x), net(x))


def test_dropblock_drops_squares_of_the_wanted_share_and_keeps_the_sum() -> None:
    torch.manual_seed(0)
    x = torch.ones(64, 32, 10, 10)
    y = DropBlock(0.1, 3)(x)
    # Overlapping squares drop a little less than asked.
    assert 0.08 < (y == 0).float().mean().item() <= 0.1
    assert y.mean().item() == pytest.approx(1.0, abs=1e-5)
    holes = (y[y.flatten(2).eq(0).any(2)] == 0).float()  # maps with a hole
    around = nn.functional.max_pool2d(1 - holes, 3, stride=1)
    assert ((1 - around).flatten(1).sum(1) >= 1).all()  # hold a whole 3x3 square


def test_a_map_smaller_than_the_square_is_dropped_whole() -> None:
    torch.manual_seed(0)
    y = DropBlock(0.5, 5)(torch.ones(200, 4, 2, 2)).flatten(2)
    assert ((y == 0).all(2) | (y > 0).all(2)).all()
    assert 0.4 < (y == 0).float().mean().item() < 0.6


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"variant": "plane"}, "Did you mean 'plain'"),
        ({"dropout": 1.0}, "below 1"),
        ({"widths": [64, 128]}, "takes 4"),
    ],
)
def test_unusable_settings(settings: dict, says: str) -> None:
    with pytest.raises(UserError, match=says):
        ResNet12((3, 32, 32), **settings)
