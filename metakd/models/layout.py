"""How images and filters lie in memory: channels-last is the faster way on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch._C._functorch import get_interpreter_stack

__all__ = ["lay_out_channels_first", "lay_out_channels_last", "on_plain_cpu"]

_VECTOR = 16
"""Numbers of float32 in the widest vector register."""


def lay_out_channels_last(network: nn.Module) -> nn.Module:
    """Lay out the filters of `network` channels-last, and its images on their way in.

    Values stay the same up to rounding. On a CPU this saves a third to a half of a pooled Conv-4 in
    float32, forward and backward, and makes way for `norm_pool_relu`. Under functional
    transforms the images are left as they come. Copies of the network keep the layout.

    Args:
        network: takes images [n, channels, height, width]; changed in place.

    Returns:
        `network`.
    """
    network.to(memory_format=torch.channels_last)
    for module in network.modules():
        if _is_strided_pointwise(module):
            assert isinstance(module, nn.Conv2d)
            module.weight.data = _channels_first(module.weight.data)
            module.register_forward_pre_hook(_guard)
    network.register_forward_pre_hook(_lay_out_images)
    return network


def on_plain_cpu(x: Tensor) -> bool:
    """Say whether `x` is on a CPU, and no functional transform or compiler looks on.

    There a function of ours may stand in for one of PyTorch's; vmap, torch.func.grad, compilers and
    exporters have rules for theirs alone.
    """
    traced = type(x) not in (Tensor, nn.Parameter)  # one without values
    plain = not traced and not get_interpreter_stack() and not torch.compiler.is_compiling()
    return x.device.type == "cpu" and plain


def lay_out_channels_first(network: nn.Module) -> nn.Module:
    """Undo `lay_out_channels_last`, filters of one channel included; changed in place, returned."""
    for module in network.modules():
        for number, hook in [*module._forward_pre_hooks.items()]:
            if hook in (_guard, _lay_out_images):
                del module._forward_pre_hooks[number]
        for tensor in (*module._parameters.values(), *module._buffers.values()):
            if tensor is not None and tensor.ndim > 1:
                tensor.data = _channels_first(tensor.data)
    return network


def _is_strided_pointwise(module: nn.Module) -> bool:
    if not isinstance(module, nn.Conv2d):
        return False
    return module.kernel_size == (1, 1) and module.stride != (1, 1)


def _guard(layer: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """Keep the input of a strided 1x1 convolution of few channels channels-first.

    Channels-last, the gradient of its weights writes past a buffer of oneDNN's: a crash, or wrong
    numbers without a word (uxlfoundation/oneDNN, issue 6035: fewer input channels than a vector
    register holds, 8 with AVX2, 16 with AVX-512).
    """
    if layer.in_channels >= _VECTOR:  # type: ignore[operator]
        return None
    return (_channels_first(given[0]), *given[1:])


def _channels_first(images: Tensor) -> Tensor:
    # `.contiguous` leaves tensors with one channel or one pixel as they are, strides and all.
    return images.flatten(1).view(images.shape)


def _lay_out_images(network: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    images = given[0]
    if isinstance(images, Tensor) and images.ndim == 4 and not get_interpreter_stack():
        # `.contiguous` would leave grey images as they are, since with one channel both layouts
        # are the same but for the strides, and these are what a convolution looks at.
        images = images.to(memory_format=torch.channels_last)
    return (images, *given[1:])
