"""Images made for one network as another one expects them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metakd.data.preprocessing import LUMA, Preprocessing
from metakd.errors import UserError

__all__ = ["InputAdapter", "adapt_input"]


@dataclass(frozen=True)
class InputAdapter:
    """Turns normalised images of one preprocessing into those of another; a forward pre-hook.

    Attributes:
        given: how the images were made that come in.
        wanted: how the network expects them.
    """

    given: Preprocessing
    wanted: Preprocessing

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the inputs of `module` with the first one adapted."""
        return (self.adapted(inputs[0]), *inputs[1:])

    def adapted(self, images: Tensor) -> Tensor:
        """Return images [n, channels, height, width] as the network expects them."""
        given, wanted = self.given, self.wanted
        mean, std = _statistics(given, images)
        images = images * std + mean  # pixels in [0, 1] again
        if wanted.channels != given.channels:
            images = _coloured(images, wanted.channels)
        if (wanted.height, wanted.width) != (given.height, given.width):
            size = (wanted.height, wanted.width)
            images = F.interpolate(images, size=size, mode="bilinear", antialias=True)
        mean, std = _statistics(wanted, images)
        return (images - mean) / std


def _statistics(preprocessing: Preprocessing, like: Tensor) -> tuple[Tensor, Tensor]:
    mean = torch.tensor(preprocessing.mean, dtype=like.dtype, device=like.device)
    std = torch.tensor(preprocessing.std, dtype=like.dtype, device=like.device)
    return mean.view(-1, 1, 1), std.view(-1, 1, 1)


def _coloured(images: Tensor, channels: int) -> Tensor:
    if channels == 3:
        return images.expand(-1, 3, -1, -1)
    weights = torch.tensor(LUMA, dtype=images.dtype, device=images.device).view(1, 3, 1, 1)
    return (images * weights).sum(1, keepdim=True)


def adapt_input(network: nn.Module, given: Preprocessing, wanted: Preprocessing) -> None:
    """Let `network` take images that were prepared as `given`; nothing if that is what it expects.

    A hook and no module: the names of its weights stay as they are.

    Raises:
        UserError: images of so many channels cannot become images of others.
    """
    channels = (given.channels, wanted.channels)
    if channels[0] != channels[1] and set(channels) != {1, 3}:
        raise UserError(
            f"the teacher expects images of {wanted.channels} channels, and these have "
            f"{given.channels}: only grey (1) and colour (3) become each other; choose another "
            "teacher"
        )
    if (given.shape, given.mean, given.std) != (wanted.shape, wanted.mean, wanted.std):
        network.register_forward_pre_hook(InputAdapter(given, wanted))
