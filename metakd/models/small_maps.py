"""3x3 convolutions over maps of a few pixels, the gradient of whose weights is slow in oneDNN."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metakd.models.layout import on_plain_cpu

__all__ = ["Conv3x3"]

_PIXELS = {torch.float32: 4, torch.bfloat16: 16}
"""Up to how many pixels of a map products of matrices are faster, by number format."""


class _ByTaps(torch.autograd.Function):
    """The convolution, and the gradient of its weights as a matrix product for each of 9 taps."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, bias, padding=1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            only = [True, False, False]
            of_x, _, _ = torch.ops.aten.convolution_backward(
                gradient, x, weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, only
            )
        if ctx.needs_input_grad[1]:
            of_weight = _weight_gradient(x, gradient)
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum((0, 2, 3))
        return of_x, of_weight, of_bias


def _weight_gradient(x: Tensor, gradient: Tensor) -> Tensor:
    """Return Σ over images and pixels of gradient · x as each tap sees it, [outputs, inputs, 3, 3].

    Args:
        x: [n, inputs, height, width].
        gradient: of the convolution's output, [n, outputs, height, width].
    """
    height, width = x.shape[2:]
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
    rows = gradient.permute(1, 0, 2, 3).flatten(1)
    taps = [
        rows @ padded[:, i : i + height, j : j + width].flatten(0, 2)
        for i in range(3)
        for j in range(3)
    ]
    return torch.stack(taps).unflatten(0, (3, 3)).permute(2, 3, 0, 1)


class Conv3x3(nn.Conv2d):
    """A 3x3 convolution, padding 1: `nn.Conv2d`, but for the time of its backward pass on a CPU.

    Over maps of 2x2 and 4x4 pixels, the last ones of a VGG or ResNet-12 on 32x32 images, oneDNN
    needs 2 to 13 times as long for the gradient of the weights as for the convolution.

    Args:
        inputs: channels of its input.
        outputs: channels of its output.
        bias: whether there is one.
    """

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__(inputs, outputs, 3, padding=1, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        """Return [n, outputs, height, width] of [n, inputs, height, width]."""
        kind, number = input.device.type, input.dtype
        if torch.is_autocast_enabled(kind) and number != torch.float64:
            number = torch.get_autocast_dtype(kind)
        elif number != self.weight.dtype:  # PyTorch says what is wrong
            return super().forward(input)
        if not _is_slow(input, number, self.weight):
            return super().forward(input)
        bias = None if self.bias is None else self.bias.to(number)
        y: Tensor = _ByTaps.apply(input.to(number), self.weight.to(number), bias)
        return y


def _is_slow(x: Tensor, number: torch.dtype, weight: Tensor) -> bool:
    return (
        x.dim() == 4
        and x.shape[2] * x.shape[3] <= _PIXELS.get(number, 0)
        and weight.requires_grad
        and torch.is_grad_enabled()
        and on_plain_cpu(x)
    )
