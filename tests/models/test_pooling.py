"""Pooling equals PyTorch's to the last bit, up to second derivatives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from metakd.models import pooling
from metakd.models.normalization import BatchNorm2d, Mode, batchnorm_mode
from metakd.models.pooling import max_pool_2x2, norm_pool_relu


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


def test_after_batch_norm_under_vmap() -> None:
    """Each element by its own statistics, as without vmap: so MAML's tasks are batched on a GPU."""
    norm, x = BatchNorm2d(4), torch.randn(3, 2, 4, 6, 6)
    with batchnorm_mode(norm, "batch"):
        norm.eval()
        batched = torch.func.vmap(lambda one: norm_pool_relu(norm, one))(x)
        torch.testing.assert_close(batched, torch.stack([norm_pool_relu(norm, one) for one in x]))


@pytest.mark.parametrize("mode", ["running", "record", "recorded"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("negative", [False, True])
@pytest.mark.parametrize("cast", [False, True])
def test_pooled_before_batch_norm_whose_statistics_are_known(
    mode: Mode, dtype: torch.dtype, negative: bool, cast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit, but where the statistics are taken here; a negative weight turns the order."""
    norm = BatchNorm2d(16)
    norm.weight.data.uniform_(0.0, 2.0)
    norm.weight.data[0] = 0.0
    if negative:
        norm.weight.data[3] = -0.5
    norm.bias.data.normal_()
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2.0)
    if cast:  # as an inner loop in bfloat16 does
        norm.to(dtype)
    shown = torch.randn(7, 16, 6, 5).mul(4).round().div(4).to(dtype)
    x = shown.contiguous(memory_format=torch.channels_last)
    pooled: list[Tensor] = []
    pool = max_pool_2x2
    monkeypatch.setattr(pooling, "max_pool_2x2", lambda x: (pooled.append(x), pool(x))[1])

    def both(known: bool) -> tuple[Tensor, Tensor]:
        with torch.no_grad(), batchnorm_mode(norm, mode):
            if mode == "recorded":
                with batchnorm_mode(norm, "record"):
                    norm(torch.cat([x, 2 * x]))
            y = norm_pool_relu(norm, x) if known else F.relu(F.max_pool2d(norm(x), 2))
        assert norm.recorded is not None or mode == "running"
        return y, torch.stack(norm.recorded or (norm.running_mean, norm.running_var))  # type: ignore[arg-type]

    theirs, ours = both(False), both(True)
    assert ours[0].dtype == dtype
    assert (pooled[0] is x) == (not negative)  # not what the layer made of it
    tolerance = {"rtol": 0.0, "atol": 0.0}
    if mode == "record":
        close = 1e-5 if dtype == torch.float32 else 2e-2
        tolerance = {"rtol": close, "atol": close}
    for one, other in zip(theirs, ours, strict=True):
        torch.testing.assert_close(other.to(one.dtype), one, **tolerance)
    norm.register_forward_hook(lambda *_: pytest.fail("seen"))
    with torch.no_grad(), batchnorm_mode(norm, mode), pytest.raises(pytest.fail.Exception):
        norm_pool_relu(norm, x)  # whoever watches the layer sees it
