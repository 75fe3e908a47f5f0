"""Batch norm by the batch's own statistics, with a second derivative in few passes over memory.

PyTorch's native layer has a fast first derivative; its second one is made of some thirty passes,
which took more of a second-order inner loop on a CPU than the convolutions did. Where
a second derivative is to be differentiated itself, it is PyTorch's.

In a channel, with M values x, weight γ, bias β, mean μ, ρ = 1 / sqrt(variance + ε), x̂ = (x - μ) ρ
and y = γ x̂ + β, let g be the gradient with respect to y, S = Σ g and T = Σ g x̂. Then

    ∂β = S,    ∂γ = T,    ∂x = γρ (g - S/M - x̂ T/M).

Let v, v_γ, v_β be the gradients with respect to these three, and V = Σ v, U = Σ v x̂, G = Σ v g.
With p = v_γ - γρ U/M, q = γρ T/M and D = G - (S V + T U)/M, the second derivatives are

    ∂g = γρ v + p x̂ + v_β - γρ V/M,
    ∂γ = ρ D,
    ∂x = ρ (p g - q v) + k x̂ + c,    k = -ρ (p T - q U + γρ D)/M,    c = -ρ (p S - q V)/M.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

__all__ = ["batch_statistics", "normalise", "normalise_pool_relu"]

_aten = torch.ops.aten


def normalise(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Return `F.batch_norm(x, None, None, weight, bias, True, 0.0, eps)`.

    Args:
        x: [n, channels, height, width].
        weight: γ [channels].
        bias: β [channels].
        eps: ε.
    """
    y: Tensor = _Normalise.apply(x, weight, bias, eps)
    return y


def normalise_pool_relu(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Return the maxima of 2x2 windows of `normalise`, or 0 where they are negative.

    The largest of a window is looked for before it is normalised, so that all that follows the
    statistics is done on a quarter of the pixels. A channel of negative weight is looked through
    for its smallest. Where several pixels of a window come out the same by rounding, or because
    the weight is 0, the gradient may go to another of them than PyTorch's; a weight of 0 then has
    another gradient, too.

    Args:
        x: [n, channels, height, width], channels-last; an odd last row or column counts in the
            statistics alone.
        weight: γ [channels].
        bias: β [channels].
        eps: ε.

    Returns:
        [n, channels, height // 2, width // 2], channels-last.
    """
    y: Tensor = _NormalisePoolReLU.apply(x, weight, bias, eps)
    return y


def batch_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance [channels] of [n, channels, height, width], on a CPU.

    Float32 at least; not for gradients.
    """
    wide = _wide(x)
    # They come in the number format of the running ones, if there are any.
    running = (None, None) if x.dtype is wide else torch.zeros((2, x.shape[1]), dtype=wide)
    mean, variance = _aten.batch_norm_update_stats(x, *running, 0.0)
    return mean, variance


class _Second(NamedTuple):
    """The coefficients of the second derivatives, each [channels]; see the top of the file."""

    p: Tensor
    q: Tensor
    k: Tensor
    c: Tensor
    weight: Tensor

    @classmethod
    def of(
        cls, scale: Tensor, rstd: Tensor, count: int, first: tuple[Tensor, Tensor],
        sums: tuple[Tensor, Tensor, Tensor], v_weight: Tensor,
    ) -> _Second:  # fmt: skip
        """Return them for scale γρ, rstd ρ, count M, first (S, T) and sums (V, U, G)."""
        (s, t), (v, u, g) = first, sums
        share, part = scale / count, rstd / -count
        p, q = torch.addcmul(v_weight, share, u, value=-1), share * t
        d = torch.sub(g, torch.addcmul(s * v, t, u), alpha=1 / count)
        k = part * torch.addcmul(p * t, q, u, value=-1).addcmul_(scale, d)
        return cls(p, q, k, part * torch.addcmul(p * s, q, v, value=-1), rstd * d)


def _wide(x: Tensor) -> torch.dtype:
    """Return the number format of statistics: never a short one."""
    return torch.promote_types(x.dtype, torch.float32)


def _along(x: Tensor, *channels: Tensor) -> tuple[Tensor, ...]:
    """Return each [channels] as [channels, 1, 1] in the number format of `x`."""
    return tuple(c.to(x.dtype).view(-1, 1, 1) for c in channels)


def _native(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    return F.batch_norm(x, None, None, weight, bias, True, 0.0, eps)


def _native_pool_relu(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    return F.relu(F.max_pool2d(_native(x, weight, bias, eps), 2))


def _differentiable(
    function: Callable[..., Tensor], x: Tensor, weight: Tensor, bias: Tensor, eps: float,
    g: Tensor, v: tuple[Tensor, ...],
) -> tuple[Tensor, ...]:  # fmt: skip
    """Return ∂g, ∂x, ∂γ of `function` by PyTorch's derivatives, with a graph of their own."""
    *inputs, g = (
        t.view_as(t) if t.requires_grad else t.detach().requires_grad_()
        for t in (x, weight, bias, g)
    )
    first = torch.autograd.grad(function(*inputs, eps), inputs, g, create_graph=True)
    at = (g, *inputs[:2])
    return torch.autograd.grad(first, at, v, create_graph=True, materialize_grads=True)


# -- as it is -----------------------------------------------------------------------------------


class _Normalise(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        wide = _wide(x)
        y: Tensor
        y, mean, rstd = _aten.native_batch_norm(
            x, weight.to(wide), bias.to(wide), None, None, True, 0.0, eps
        )
        ctx.save_for_backward(x, weight, bias, mean, rstd)
        ctx.eps = eps
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return (*_NormaliseBackward.apply(g, *ctx.saved_tensors, ctx.eps), None)


class _NormaliseBackward(Function):
    @staticmethod
    def forward(
        ctx: Any, g: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor,
        eps: float,
    ) -> Any:  # fmt: skip
        ctx.eps = eps
        found = _native_backward(g, x, weight, mean, rstd, of_x=True)
        ctx.save_for_backward(g, x, weight, bias, mean, rstd, *found[1:])
        return found

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        g, x, weight, bias, mean, rstd, t, s = ctx.saved_tensors
        if torch.is_grad_enabled():
            found = _differentiable(_native, x, weight, bias, ctx.eps, g, cotangents)
            return *found, *[None] * 4
        v, v_weight, v_bias = cotangents
        scale = weight * rstd
        of_g, u, v_sum = _native_backward(v, x, weight, mean, rstd, of_x=True)
        shift, slope = _along(x, v_bias - v_weight * rstd * mean, v_weight * rstd)
        of_g = of_g + torch.addcmul(shift, x, slope)
        sums = (v_sum, u, (v * g).sum((0, 2, 3), dtype=scale.dtype))
        second = _Second.of(scale, rstd, x.numel() // x.shape[1], (s, t), sums, v_weight)
        slope = second.k * rstd
        shift, slope, of_v, of_first = _along(
            x, second.c - slope * mean, slope, -rstd * second.q, rstd * second.p
        )
        of_x = torch.addcmul(shift, x, slope).addcmul_(v, of_v).addcmul_(g, of_first)
        return of_g, of_x, second.weight, *[None] * 4


def _native_backward(
    g: Tensor, x: Tensor, weight: Tensor, mean: Tensor, rstd: Tensor, *, of_x: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (γρ (g - S/M - x̂ T/M), T, S); the first is empty unless `of_x`."""
    found: tuple[Tensor, Tensor, Tensor] = _aten.native_batch_norm_backward(
        g, x, weight.to(mean.dtype), None, None, mean, rstd, True, 0.0, [of_x, True, True]
    )
    return found


# -- with pooling and ReLU ----------------------------------------------------------------------
#
# Only the pixels that were picked have a gradient g; v, x and ∂x are those of all of them.


class _NormalisePoolReLU(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        mean, variance = batch_statistics(x)
        rstd = torch.rsqrt(variance + eps)  # in the wider number format, as all [channels] below
        if bool(weight.min() < 0):
            (sign,) = _along(x, torch.where(weight < 0, -1.0, 1.0))
            picked, index = _aten.max_pool2d_with_indices(x * sign, [2, 2], [2, 2])
            picked = picked * sign
        else:
            picked, index = _aten.max_pool2d_with_indices(x, [2, 2], [2, 2])
        slope, shift = weight.to(mean.dtype), bias.to(mean.dtype)
        y = F.batch_norm(picked, mean, variance, slope, shift, eps=eps).relu_()
        ctx.save_for_backward(x, weight, bias, mean, rstd, picked, _rows(index), y)
        ctx.eps = eps
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return (*_NormalisePoolReLUBackward.apply(g, *ctx.saved_tensors, ctx.eps), None)


class _NormalisePoolReLUBackward(Function):
    @staticmethod
    def forward(
        ctx: Any, g: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor,
        picked: Tensor, index: Tensor, y: Tensor, eps: float,
    ) -> Any:  # fmt: skip
        ctx.eps = eps
        picked_g = _aten.threshold_backward(g, y, 0)
        _, t, s = _native_backward(picked_g, picked, weight, mean, rstd, of_x=False)
        ctx.save_for_backward(g, x, weight, bias, mean, rstd, picked, index, y, t, s)
        scale, count = weight * rstd, x.numel() // x.shape[1]
        share = scale / -count
        slope = share * rstd * t
        shift = torch.addcmul(share * s, slope, mean, value=-1)
        shift, slope, of_g = _along(x, shift, slope, scale)
        of_x = _scatter_add(torch.addcmul(shift, x, slope), index, picked_g * of_g)
        return of_x, t, s

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        g, x, weight, bias, mean, rstd, picked, index, y, t, s = ctx.saved_tensors
        if torch.is_grad_enabled():
            found = _differentiable(_native_pool_relu, x, weight, bias, ctx.eps, g, cotangents)
            return *found, *[None] * 7
        v, v_weight, v_bias = cotangents
        g = _aten.threshold_backward(g, y, 0)
        scale, count = weight * rstd, x.numel() // x.shape[1]
        _, u, v_sum = _native_backward(v, x, weight, mean, rstd, of_x=False)
        v_picked = _gather(v, index, y)
        sums = (v_sum, u, (v_picked * g).sum((0, 2, 3), dtype=scale.dtype))
        second = _Second.of(scale, rstd, count, (s, t), sums, v_weight)
        slope = second.p * rstd
        shift, slope, of_v = _along(x, v_bias - scale * v_sum / count - slope * mean, slope, scale)
        of_g = torch.addcmul(shift, picked, slope).addcmul_(v_picked, of_v)
        slope = second.k * rstd
        shift, slope, of_v, of_first = _along(
            x, second.c - slope * mean, slope, -rstd * second.q, rstd * second.p
        )
        of_x = torch.addcmul(shift, x, slope).addcmul_(v, of_v)
        of_x = _scatter_add(of_x, index, g * of_first)
        of_g = _aten.threshold_backward(of_g, y, 0)
        return of_g, of_x, second.weight, *[None] * 7


def _rows(images: Tensor) -> Tensor:
    """Return [n, channels, height, width] as [n, pixels, channels]; channels-last: a view."""
    return images.permute(0, 2, 3, 1).flatten(1, 2)


def _gather(images: Tensor, index: Tensor, like: Tensor) -> Tensor:
    """Return the pixels of images at `index` [n, pixels, channels], in the shape of `like`."""
    n, channels, height, width = like.shape
    return _rows(images).gather(1, index).view(n, height, width, channels).permute(0, 3, 1, 2)


def _scatter_add(images: Tensor, index: Tensor, values: Tensor) -> Tensor:
    """Add values to the pixels of channels-last images at `index`; in place."""
    _rows(images).scatter_add_(1, index, _rows(values))
    return images
