"""Mean and standard deviation of a dataset's pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from metakd.data.on_disk import taken

__all__ = ["mean_and_std"]


def mean_and_std(images: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of pixels in [0, 1].

    Args:
        images: [n, channels, height, width] uint8.
        keep: [n] bool, which images count.

    Returns:
        two float32 tensors [channels]; the deviation of a channel without contrast is given as 1.
    """
    channels = images.shape[1]
    # A histogram of the 256 pixel values is exact and needs no float copy of the images; chunks
    # that fit the processor's cache need no copy of the whole either.
    counts = torch.zeros(channels, 256, dtype=torch.int64, device=images.device)
    for chunk in keep.nonzero().flatten().split(512):
        pixels = taken(images, chunk)
        for c in range(channels):
            counts[c] += torch.bincount(pixels[:, c].reshape(-1), minlength=256)
    counts = counts.cpu()  # not every device has float64
    levels = torch.arange(256, dtype=torch.float64) / 255.0
    shares = counts / counts.sum(dim=1, keepdim=True).double()
    mean = shares @ levels
    variance = (shares * (levels - mean[:, None]).square()).sum(dim=1)
    std = variance.sqrt()
    # A channel without any contrast must not divide by 0.
    std = torch.where(std > 0, std, torch.ones_like(std))
    return mean.float().to(images.device), std.float().to(images.device)
