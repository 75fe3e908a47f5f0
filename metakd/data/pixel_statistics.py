"""Mean and standard deviation of a dataset's pixels."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["mean_and_std"]


def mean_and_std(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation [channels] of uint8 images, of pixels in [0, 1]."""
    channels = images.shape[1]
    # A histogram of the 256 pixel values is exact and needs no float copy of the images.
    levels = torch.arange(256, dtype=torch.float64, device=images.device) / 255.0
    shares = torch.stack(
        [torch.bincount(images[:, c].reshape(-1), minlength=256) for c in range(channels)]
    ).to(torch.float64)
    shares /= shares.sum(dim=1, keepdim=True)
    mean = shares @ levels
    variance = (shares * (levels - mean[:, None]).square()).sum(dim=1)
    std = variance.sqrt()
    # A channel without any contrast must not divide by 0.
    std = torch.where(std > 0, std, torch.ones_like(std))
    return mean.float(), std.float()
