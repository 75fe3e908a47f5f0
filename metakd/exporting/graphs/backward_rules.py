"""Layers and their backward passes by operations that runtimes know."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "batch_norm",
    "batch_norm_alone",
    "batch_norm_backward",
    "convolution_backward",
    "max_pool_backward",
    "rules",
]

aten = torch.ops.aten


def rules() -> dict[Any, Callable[..., Any]]:
    """Return a table of decompositions: torch's own, and in their place those of this module."""
    return {
        **torch.export.default_decompositions(),
        aten.native_batch_norm.default: batch_norm,
        aten.native_batch_norm_backward.default: batch_norm_backward,
        aten.convolution_backward.default: convolution_backward,
        aten.max_pool2d_with_indices_backward.default: max_pool_backward,
    }


def _apart(vector: Tensor, like: Tensor) -> Tensor:
    """Return [channels] as [1, channels, 1 …], with as many dimensions as `like`."""
    return vector.view(1, -1, *(1 for _ in range(like.dim() - 2)))


def batch_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    variance: Tensor | None,
    training: bool,
    momentum: float,
    epsilon: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return normalised x [n, channels, …], and mean and 1 / deviation [channels] of the batch.

    As `torch.native_batch_norm`, but no running statistics are updated.

    Args:
        x: [n, channels, …].
        weight: [channels]; None: 1.
        bias: [channels]; None: 0.
        mean: the running one [channels], read unless `training`.
        variance: likewise.
        training: normalise by the batch.
        momentum: not read.
        epsilon: added to the variance.
    """
    if training:
        over = [0, *range(2, x.dim())]
        variance, mean = torch.var_mean(x, dim=over, correction=0)
    assert mean is not None
    assert variance is not None
    inverse = torch.rsqrt(variance + epsilon)
    scale = inverse if weight is None else inverse * weight
    shift = -mean * scale
    shift = shift if bias is None else shift + bias
    y = x * _apart(scale, x) + _apart(shift, x)
    return (y, mean, inverse) if training else (y, x.new_empty(0), x.new_empty(0))


def batch_norm_alone(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    momentum: float,
    epsilon: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what `batch_norm` does by a batch's own statistics; its arguments."""
    return batch_norm(x, weight, bias, None, None, training, momentum, epsilon)


def batch_norm_backward(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor | None,
    running_mean: Tensor | None,
    running_variance: Tensor | None,
    mean: Tensor,
    inverse: Tensor,
    training: bool,
    epsilon: float,
    wanted: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return the gradients of batch norm by its input, weight and bias; None if not `wanted`.

    With h = (x - mean) · inverse and means over a batch: inverse · weight · (g - mean(g) - h ·
    mean(g · h)) by the input, or, where statistics are constants, inverse · weight · g.

    Args:
        gradient: by the output, of x's shape.
        x: [n, channels, …].
        weight: [channels]; None: 1.
        running_mean: [channels], the mean unless `training`.
        running_variance: likewise.
        mean: of the batch [channels].
        inverse: 1 / deviation of the batch [channels].
        training: it normalised by the batch.
        epsilon: added to the variance.
        wanted: which of the three.
    """
    if not training:
        assert running_mean is not None
        assert running_variance is not None
        mean, inverse = running_mean, torch.rsqrt(running_variance + epsilon)
    over = [0, *range(2, x.dim())]
    normalised = (x - _apart(mean, x)) * _apart(inverse, x)
    by_bias = gradient.sum(over)
    by_weight = (gradient * normalised).sum(over)
    by_input = None
    if wanted[0]:
        left = gradient
        if training:
            count = x.numel() // x.shape[1]
            average = _apart(by_weight / count, x)
            left = gradient - _apart(by_bias / count, x) - normalised * average
        by_input = left * _apart(inverse if weight is None else inverse * weight, x)
    return by_input, by_weight if wanted[1] else None, by_bias if wanted[2] else None


def convolution_backward(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    bias_sizes: Sequence[int] | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    wanted: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return the gradients of a convolution by its input, weight and bias; None if not `wanted`.

    The gradient by the input is a transposed convolution. That by the weight is a convolution of
    the input with the output's gradient as the filter, examples and channels having changed
    places.

    Args:
        gradient: by the output [n, out, *size].
        x: [n, in, *size].
        weight: [out, in / groups, *filter].
        bias_sizes: not read.
        stride: of the convolution, as for the next ones.
        padding: likewise.
        dilation: likewise.
        transposed: likewise; false.
        output_padding: not read.
        groups: likewise.
        wanted: which of the three.
    """
    assert not transposed, "the backward pass of a transposed convolution"
    by_input = by_weight = by_bias = None
    places = range(2, x.dim())
    if wanted[0]:
        left = []  # rows and columns at the end of the input that no filter reached
        for i, step, edge, apart in zip(places, stride, padding, dilation, strict=True):
            reached = (gradient.shape[i] - 1) * step - 2 * edge + apart * (weight.shape[i] - 1) + 1
            left.append(x.shape[i] - reached)
        by_input = aten.convolution(
            gradient, weight, None, stride, padding, dilation, True, left, groups
        )
    if wanted[1]:
        images, filters = _examples_as_channels(x, groups), gradient.transpose(0, 1)
        nothing = [0 for _ in places]
        found = aten.convolution(
            images, filters, None, dilation, padding, stride, False, nothing, groups
        )
        found = found[(..., *(slice(0, weight.shape[i]) for i in places))]
        by_weight = found.transpose(0, 1)
    if wanted[2]:
        by_bias = gradient.sum([0, *places])
    return by_input, by_weight, by_bias


def _examples_as_channels(x: Tensor, groups: int) -> Tensor:
    """Return [n, groups · c, *size] as [c, groups · n, *size]."""
    if groups == 1:
        return x.transpose(0, 1)
    return x.unflatten(1, (groups, -1)).permute(2, 1, 0, *range(3, x.dim() + 1)).flatten(1, 2)


def max_pool_backward(
    gradient: Tensor,
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil: bool,
    index: Tensor,
) -> Tensor:
    """Return the gradient of max-pooling by its input: each goes to where the maximum was.

    Args:
        gradient: by the output [n, channels, h, w].
        x: [n, channels, height, width].
        kernel: not read, as are the next four.
        stride: see above.
        padding: see above.
        dilation: see above.
        ceil: see above.
        index: int64, of the gradient's shape: place in height · width.
    """
    found = torch.zeros_like(x).flatten(2)
    return found.scatter_add(2, index.flatten(2), gradient.flatten(2)).view(x.shape)
