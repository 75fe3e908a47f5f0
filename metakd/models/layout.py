"""How images and filters lie in memory: channels-last is the faster way on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch._C._functorch import get_interpreter_stack

__all__ = ["lay_out_channels_last"]


def lay_out_channels_last(network: nn.Module) -> nn.Module:
    """Lay out the filters of `network` channels-last, and its images on their way in.

    Values stay the same up to rounding. On a CPU this saves a third to a half of a pooled Conv-4 in
    float32, forward and backward; second-order gradients gain little or lose. Under functional
    transforms the images are left as they come. Copies of the network keep the layout.

    Args:
        network: takes images [n, channels, height, width]; changed in place.

    Returns:
        `network`.
    """
    network.to(memory_format=torch.channels_last)
    network.register_forward_pre_hook(_lay_out_images)
    return network


def _lay_out_images(network: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    images = given[0]
    if isinstance(images, Tensor) and images.ndim == 4 and not get_interpreter_stack():
        # `.contiguous` would leave grey images as they are, since with one channel both layouts
        # are the same but for the strides, and these are what a convolution looks at.
        images = images.to(memory_format=torch.channels_last)
    return (images, *given[1:])
