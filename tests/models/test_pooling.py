"""Pooling equals PyTorch's to the last bit, up to second derivatives."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from metakd.models.pooling import max_pool_2x2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("shape", [(3, 5, 8, 8), (2, 4, 7, 9), (1, 1, 2, 2), (4, 1, 28, 28)])
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_equals_pytorchs(dtype: torch.dtype, shape: tuple, memory: torch.memory_format) -> None:
    """Rounded numbers, so that many windows hold their maximum more than once."""
    values = torch.randn(shape).mul(2).round().to(dtype).contiguous(memory_format=memory)
    found = []
    for pool in (lambda x: F.max_pool2d(x, 2), max_pool_2x2):
        x = values.clone(memory_format=torch.preserve_format).requires_grad_()
        y = pool(x)
        weight = torch.arange(y.numel(), dtype=dtype).view_as(y).requires_grad_()
        (first,) = torch.autograd.grad(y, x, weight, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), weight)
        found.append((y, first, second))
    for theirs, ours in zip(*found, strict=True):
        assert torch.equal(theirs, ours)


@pytest.mark.parametrize("shape", [(3, 5, 8, 8), (2, 4, 7, 9), (4, 16, 3, 3), (2, 3, 2, 2)])
def test_unpooling_is_the_gradient(shape: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.randn(shape).mul(2).round().bfloat16()
    values = values.contiguous(memory_format=torch.channels_last)
    found = []
    for mode in (True, False):  # PyTorch's own where results have to be deterministic
        monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda mode=mode: mode)
        x = values.clone(memory_format=torch.preserve_format).requires_grad_()
        y = max_pool_2x2(x)
        assert ("Unpooled" in type(y.grad_fn).__name__) != (mode or x.is_contiguous())
        with torch.autocast("cpu", torch.bfloat16):  # as in training
            (gradient,) = torch.autograd.grad(y, x, y.detach() + 1)
        assert gradient.is_contiguous(memory_format=torch.channels_last)
        found.append((y, gradient))
    for theirs, ours in zip(*found, strict=True):
        assert torch.equal(theirs, ours)


def test_second_derivatives() -> None:
    x = torch.randn(2, 2, 5, 4, dtype=torch.float64, requires_grad=True)
    smooth = torch.tanh
    assert torch.autograd.gradgradcheck(lambda x: smooth(max_pool_2x2(smooth(x))), (x,))


def test_under_torch_func() -> None:
    x = torch.randn(3, 2, 4, 6, 6)
    batched = torch.func.vmap(max_pool_2x2)(x)
    assert torch.equal(batched, torch.stack([F.max_pool2d(one, 2) for one in x]))
    gradient = torch.func.grad(lambda x: max_pool_2x2(x).sum())(x[0])
    assert gradient.sum() == 2 * 4 * 9
