"""A network of the user's own is refused in a line where it is no backbone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from metakd.errors import UserError
from metakd.models.interface import check_backbone


class Own(nn.Module):
    """Embeds by a linear layer and batch norm; `size` is what it says of itself."""

    def __init__(self, size: Any = 3) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(16, 3), nn.BatchNorm1d(3))
        self.embedding_size = size

    def forward(self, examples: Tensor) -> Any:
        return self.layers(examples)


class Tuple(Own):
    def forward(self, examples: Tensor) -> Any:
        return self.layers(examples), 1


class Maps(Own):
    def forward(self, examples: Tensor) -> Any:
        return self.layers(examples)[..., None, None]


class Silent(nn.Module):
    embedding_size = 3


def test_a_backbone_is_left_as_it_is() -> None:
    own = Own()
    before = {name: tensor.clone() for name, tensor in own.state_dict().items()}
    check_backbone(own, (1, 4, 4))
    assert own.training
    assert all(torch.equal(before[name], now) for name, now in own.state_dict().items())


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (object(), r"object is no network: make it a torch\.nn\.Module with a method forward"),
        (Silent(), "Silent is no network"),
        (Own(None), "embedding_size is None; it has to be the length"),
        (Own("3"), "embedding_size is '3'"),
        (Own(4), r"returns a tensor \[2, 3\] for .*\[2, 1, 4, 4\]; .* has to be a tensor \[2, 4\]"),
        (Tuple(), "returns tuple for examples"),
        (Maps(), r"returns a tensor \[2, 3, 1, 1\]"),
    ],
)
def test_what_is_no_backbone(network: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        check_backbone(network, (1, 4, 4))
