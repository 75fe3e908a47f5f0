"""Wide residual networks."""

from __future__ import annotations

import pytest
import torch

from metakd.errors import UserError
from metakd.models.wrn import WRN


@pytest.mark.parametrize(
    ("depth", "width", "published"),
    [(16, 2, 691_674), (40, 2, 2_243_546), (28, 10, 36_479_194)],
)
def test_published_parameters(depth: int, width: int, published: int) -> None:
    with torch.device("meta"):
        net = WRN((3, 32, 32), depth=depth, width=width)
    head = net.embedding_size * 10 + 10  # for ten classes
    assert sum(p.numel() for p in net.parameters()) + head == published


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
def test_shapes(norm: str) -> None:
    net = WRN((1, 28, 28), depth=10, width=1, norm=norm)
    assert net.embedding_size == 64
    assert net(torch.randn(2, 1, 28, 28)).shape == (2, 64)


def test_dropout_in_training_only() -> None:
    net = WRN((3, 16, 16), depth=10, width=1, dropout=0.5)
    x = torch.randn(2, 3, 16, 16)
    assert not torch.equal(net(x), net(x))
    net.eval()
    assert torch.equal(net(x), net(x))


@pytest.mark.parametrize(("depth", "nearest"), [(18, 16), (29, 28), (4, 10)])
def test_depth_must_be_6n_plus_4(depth: int, nearest: int) -> None:
    with pytest.raises(UserError, match=f"depth={nearest}"):
        WRN((3, 32, 32), depth=depth)
