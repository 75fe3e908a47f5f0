"""Whether a network of the user's own is what the program takes for one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from metakd.errors import UserError

__all__ = ["check_backbone"]

_FEW = 2


def check_backbone(network: Any, input_shape: tuple[int, ...]) -> None:
    """Refuse a network that is no backbone, before anything is trained; it answers once.

    Args:
        network: newly built.
        input_shape: of an example.

    Raises:
        UserError: with what its class has to have.
    """
    name = type(network).__name__
    if not isinstance(network, nn.Module) or type(network).forward is nn.Module.forward:
        raise UserError(f"{name} is no network: make it a torch.nn.Module with a method forward")
    size = getattr(network, "embedding_size", None)
    if type(size) is not int or size < 1:
        raise UserError(
            f"{name}: its attribute embedding_size is {size!r}; it has to be the length of the "
            "embeddings that forward returns"
        )
    trains = network.training
    try:
        with torch.no_grad():
            found = network.eval()(torch.zeros(_FEW, *input_shape))
    finally:
        network.train(trains)
    if not isinstance(found, Tensor) or found.shape != (_FEW, size):
        what = (
            f"a tensor {list(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        )
        raise UserError(
            f"{name}.forward returns {what} for examples [{_FEW}, "
            f"{', '.join(map(str, input_shape))}]; with embedding_size = {size} it has to be a "
            f"tensor [{_FEW}, {size}]"
        )
