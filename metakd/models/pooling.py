"""Max-pooling that is fast on a CPU, alone and after a normalisation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metakd.models.batchnorm_gradients import normalise_pool_relu
from metakd.models.layout import on_plain_cpu
from metakd.models.normalization import BatchNorm2d

__all__ = ["max_pool_2x2", "norm_pool_relu"]


class _ThroughChannelsLast(torch.autograd.Function):
    """PyTorch's pooling by way of the channels-last format; same values, same gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        channels_last = x.contiguous(memory_format=torch.channels_last)
        pooled, index = torch.ops.aten.max_pool2d_with_indices(channels_last, [2, 2], [2, 2])
        ctx.save_for_backward(x, index.contiguous())
        return pooled.contiguous()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # PyTorch's own backward in the contiguous format: it is fast, and differentiable again.
        x, index = ctx.saved_tensors
        return torch.ops.aten.max_pool2d_with_indices_backward(
            gradient, x, [2, 2], [2, 2], [0, 0], [1, 1], False, index
        )


class _Unpooled(torch.autograd.Function):
    """PyTorch's pooling of channels-last maps; the gradient by unpooling, which is the same.

    Windows do not overlap, so that each number is the gradient of one window or of none.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        pooled: Tensor
        pooled, index = torch.ops.aten.max_pool2d_with_indices(x, [2, 2], [2, 2])
        ctx.save_for_backward(index)
        ctx.size = x.shape[2:]
        return pooled

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (index,) = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", enabled=False):  # it would unpool float32
            return torch.ops.aten.max_unpool2d(gradient, index, ctx.size)


def max_pool_2x2(x: Tensor) -> Tensor:
    """Return the maxima of 2x2 windows, stride 2, an odd last row or column left out.

    The same as `F.max_pool2d(x, 2)` to the last bit, also where a window holds its maximum twice.
    On a CPU PyTorch pools channels-last images with vector instructions and contiguous ones
    number by number; going there and back takes a third to a half of the time (float32 and
    bfloat16), in a network that would otherwise spend a third of its own in the pooling. Of
    channels-last maps in bfloat16 the gradient takes half to two thirds of PyTorch's time.

    Args:
        x: [n, channels, height, width].

    Returns:
        [n, channels, height // 2, width // 2].
    """
    faster: type[torch.autograd.Function] | None = None
    if x.dim() == 4 and on_plain_cpu(x):
        if x.is_contiguous():
            faster = _ThroughChannelsLast
        # With deterministic algorithms PyTorch refuses unpooling: windows could overlap.
        elif x.dtype == torch.bfloat16 and not torch.are_deterministic_algorithms_enabled():
            faster = _Unpooled
    pooled: Tensor = F.max_pool2d(x, 2) if faster is None else faster.apply(x)
    return pooled


def norm_pool_relu(norm: nn.Module, x: Tensor) -> Tensor:
    """Return `relu(max_pool_2x2(norm(x)))`, on a CPU in fewer passes.

    Pooling before ReLU gives the same values and gradients as after it, on a quarter of the pixels.
    So does pooling before batch norm that takes no gradient, whose statistics are known and whose
    weights are not negative, to the bit: it never turns a larger number into a smaller one.

    Args:
        norm: a normalisation of [n, channels, height, width].
        x: such images.

    Returns:
        [n, channels, height // 2, width // 2].
    """
    if (
        type(norm) is BatchNorm2d
        and x.numel() > x.shape[1]
        and norm.affine
        and norm.by_batch_alone
        and x.dtype is not torch.bfloat16  # whose pixels are scattered number by number
        and on_plain_cpu(x)  # before the layout, which vmap does not tell
        and x.is_contiguous(memory_format=torch.channels_last)
    ):
        return normalise_pool_relu(x, norm.weight, norm.bias, norm.eps)
    if (
        type(norm) is BatchNorm2d
        and norm.affine
        and not torch.is_grad_enabled()
        and on_plain_cpu(x)
        and not bool((norm.weight < 0).any())
    ):
        known = norm.take_statistics(x)
        if known is not None:
            weight, bias = (t.to(known[0].dtype) for t in (norm.weight, norm.bias))
            return F.relu(F.batch_norm(max_pool_2x2(x), *known, weight, bias, eps=norm.eps))
    return F.relu(max_pool_2x2(norm(x)))
