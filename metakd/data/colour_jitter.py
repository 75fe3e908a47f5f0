"""Brightness, contrast, saturation and hue of pictures changed at random, in batch."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["HUE", "STRENGTH", "colour_jittered", "hue_turned"]

STRENGTH = 0.4
"""Largest relative change of brightness, contrast and saturation: of most few-shot recipes (Chen et
al. 2019, Tian et al. 2020)."""
HUE = 0.1
"""Largest turn of the hue, in parts of the colour circle (MoCo v2; SimCLR's in proportion)."""

_GREY = (0.2989, 0.587, 0.114)  # of torchvision, PIL and BT.601


def colour_jittered(images: Tensor, numbers: Tensor) -> Tensor:
    """Change brightness, then contrast, then saturation, then hue; each is clipped.

    torchvision's `ColorJitter` of a float picture, its four steps always in this order. Grey
    pictures have neither saturation nor hue.

    Args:
        images: [n, channels, height, width] float, 0 … 255.
        numbers: [n, 4] in [0, 1); 0.5 leaves what it stands for as it is.
    """
    spread = (2.0 * numbers - 1.0)[:, :, None, None, None]
    brightness, contrast, saturation = (1.0 + STRENGTH * spread[:, :3]).unbind(1)
    images = (images * brightness).clamp_(0.0, 255.0)
    middle = _grey(images).mean(dim=(1, 2, 3), keepdim=True)
    images = (middle + (images - middle) * contrast).clamp_(0.0, 255.0)
    if images.shape[1] != 3:
        return images
    grey = _grey(images)
    images = (grey + (images - grey) * saturation).clamp_(0.0, 255.0)
    return hue_turned(images, HUE * spread[:, 3, :, 0])


def hue_turned(images: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue of HSV colours; value and saturation stay.

    Args:
        images: [n, 3, height, width] float.
        turn: broadcasts to [n, height, width], in parts of the colour circle.
    """
    red, green, blue = images.unbind(1)
    most, least = images.amax(1), images.amin(1)
    span = most - least
    divisor = torch.where(span > 0, span, 1.0)
    sector = torch.where(
        most == red,
        (green - blue) / divisor,
        torch.where(most == green, 2.0 + (blue - red) / divisor, 4.0 + (red - green) / divisor),
    )
    sector = sector + 6.0 * turn
    # Each channel is `most` less as much of the span as the hue is away from it on the circle.
    parts = []
    for offset in (5.0, 3.0, 1.0):
        at = torch.remainder(sector + offset, 6.0)
        parts.append(most - span * torch.minimum(at, 4.0 - at).clamp_(0.0, 1.0))
    return torch.stack(parts, dim=1)


def _grey(images: Tensor) -> Tensor:
    """Return the brightness [n, 1, height, width] that is seen; other numbers of channels: mean."""
    if images.shape[1] != 3:
        return images.mean(dim=1, keepdim=True)
    weights = torch.tensor(_GREY, dtype=images.dtype, device=images.device)
    return (images * weights[:, None, None]).sum(dim=1, keepdim=True)
