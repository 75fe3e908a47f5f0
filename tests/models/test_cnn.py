"""The two-convolution network, as teacher and as student."""

from __future__ import annotations

import pytest
import torch

from metakd.errors import UserError
from metakd.models.cnn import CNN


@pytest.mark.parametrize(
    ("settings", "parameters", "size"),
    [
        # 9·32 + 9·32·64 + (7·7·64 + 1)·64, and two numbers per channel for the norms
        ({"norm": "batch"}, 288 + 18432 + 200768 + 2 * 96, 64),
        ({"widths": [16, 32, 32], "norm": "none"}, 160 + 4640 + 50208, 32),
        ({"width": 16, "norm": "none"}, 160 + 4640 + 50208, 32),
    ],
)
def test_parameters_by_hand(settings: dict, parameters: int, size: int) -> None:
    net = CNN((1, 28, 28), **settings)
    assert sum(p.numel() for p in net.parameters()) == parameters
    assert net.embedding_size == size
    assert net(torch.randn(3, 1, 28, 28)).shape == (3, size)


def test_embeddings_are_after_relu() -> None:
    embeddings = CNN((3, 32, 32))(torch.randn(4, 3, 32, 32))
    assert (embeddings >= 0).all()
    assert (embeddings > 0).any()


def test_wrong_number_of_widths() -> None:
    with pytest.raises(UserError, match="has 2 entries; this network takes 3"):
        CNN((1, 28, 28), widths=[16, 32])
