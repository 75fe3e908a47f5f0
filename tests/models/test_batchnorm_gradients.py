"""Batch norm of ours is PyTorch's, up to second derivatives, as is the one that pools, too."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from metakd.models.batchnorm_gradients import normalise, normalise_pool_relu
from metakd.models.normalization import BatchNorm2d, set_running_statistics
from metakd.models.pooling import norm_pool_relu

EPS = 1e-3
Function = Callable[[Tensor, Tensor, Tensor, float], Tensor]


def native(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    return F.batch_norm(x, None, None, weight, bias, True, 0.0, eps)


def native_pool_relu(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    return F.relu(F.max_pool2d(native(x, weight, bias, eps), 2))


PAIRS = [(normalise, native), (normalise_pool_relu, native_pool_relu)]
each_pair = pytest.mark.parametrize(("ours", "twin"), PAIRS, ids=["alone", "pooled"])
LAST = {"memory_format": torch.channels_last}


def inputs(
    dtype: torch.dtype = torch.float64, shape: tuple[int, ...] = (3, 4, 5, 6)
) -> list[Tensor]:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=g, dtype=torch.float64).mul(2).add(3)
    weight = torch.tensor([1.0, -0.5, 2.0, -1.5], dtype=torch.float64)
    bias = torch.randn(4, generator=g, dtype=torch.float64)
    return [t.to(dtype).requires_grad_() for t in (x.contiguous(**LAST), weight, bias)]


@each_pair
def test_derivatives_by_finite_differences(ours: Function, twin: Function) -> None:
    given = inputs()
    assert torch.autograd.gradcheck(lambda *a: ours(*a, EPS), given)
    assert torch.autograd.gradgradcheck(lambda *a: ours(*a, EPS), given)


def with_derivatives(function: Function, given: list[Tensor]) -> list[Tensor]:
    """Return the values, first and second derivatives, on smooth functions of all of them."""
    y = function(*given, EPS)
    first = torch.autograd.grad(y.double().sin().sum(), given, create_graph=True)
    second = torch.autograd.grad(sum(f.double().cos().sum() for f in first), given)
    return [y, *first, *second]


@pytest.mark.parametrize(
    ("ours", "twin", "memory"),
    [(*PAIRS[0], torch.contiguous_format), *((*pair, torch.channels_last) for pair in PAIRS)],
    ids=["alone", "alone-last", "pooled-last"],
)
@pytest.mark.parametrize("shape", [(3, 4, 5, 6), (1, 4, 2, 2), (2, 4, 7, 7)])
def test_equals_pytorchs(
    ours: Function, twin: Function, memory: torch.memory_format, shape: tuple[int, ...]
) -> None:
    given = inputs(shape=shape)
    given[0] = given[0].detach().contiguous(memory_format=memory).requires_grad_()
    for a, b in zip(*(with_derivatives(f, given) for f in (ours, twin)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@each_pair
def test_bfloat16_is_as_near_to_float64_as_pytorchs(ours: Function, twin: Function) -> None:
    """Statistics and sums are taken in float32, and the second derivatives reach every input."""
    short = inputs(torch.bfloat16, (8, 4, 8, 8))
    wide = [t.detach().double().requires_grad_() for t in short]
    exact = with_derivatives(twin, wide)
    for found, theirs, right in zip(
        with_derivatives(ours, short), with_derivatives(twin, short), exact, strict=True
    ):
        assert found.dtype == torch.bfloat16
        error, limit = (
            float((t.double() - right).detach().norm() / right.detach().norm())
            for t in (found, theirs)
        )
        assert error < max(1.2 * limit, 0.01)


def test_one_pixel_of_a_window_is_picked() -> None:
    """Window [1, 3; 2, 3]: the first of its maxima; of a negative weight the minimum."""
    x = torch.tensor([[1.0, 3.0], [2.0, 3.0]], dtype=torch.float64)[None, None].contiguous(**LAST)
    x.requires_grad_()
    mean, std = 2.25, 0.6875**0.5
    for weight, value, place in (
        (2.0, (3 - mean) / std * 2, (0, 1)),
        (-2.0, 1.25 / std * 2, (0, 0)),
    ):
        w, b = torch.tensor([weight], dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
        y = normalise_pool_relu(x, w, b, 0.0)
        assert y.item() == pytest.approx(value)
        (g,) = torch.autograd.grad(y, x)
        hat = (x.detach() - mean) / std
        at = torch.zeros_like(x.detach())
        at[(0, 0, *place)] = 1.0
        expected = weight / std * (at - 0.25 - hat * hat[(0, 0, *place)] / 4)
        torch.testing.assert_close(g, expected)


@each_pair
def test_second_derivatives_can_be_differentiated_as_pytorchs(
    ours: Function, twin: Function
) -> None:
    """As a teacher does who learns from students that adapt: with respect to what g and v hang on.

    With respect to x both refuse.
    """
    given, found = inputs(), []
    by = [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (0.7, 1.3)]
    for function in (ours, twin):
        loss = (by[0] * function(*given, EPS)).sin().sum()
        first = torch.autograd.grad(loss, given, create_graph=True)
        loss = sum((by[1] * f).sin().sum() for f in first)
        second = torch.autograd.grad(loss, given, create_graph=True)
        third = sum(f.sin().sum() for f in second)
        found.append(torch.autograd.grad(third, by, retain_graph=True))
        with pytest.raises(RuntimeError, match="3rd"):
            torch.autograd.grad(third, given[0])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("mode", ["batch", "running", "record", None])
@pytest.mark.parametrize("training", [False, True])
def test_a_layer_pools_with_the_statistics_that_it_is_to_use(mode: str, training: bool) -> None:
    torch.manual_seed(0)
    layers = [BatchNorm2d(4).double().train(training) for _ in range(2)]
    x = torch.randn(3, 4, 6, 6, dtype=torch.float64).contiguous(**LAST).requires_grad_()
    found = []
    for layer, run in zip(
        layers,
        (lambda n: norm_pool_relu(n, x), lambda n: F.relu(F.max_pool2d(n(x), 2))),
        strict=True,
    ):
        layer.mode = mode
        y = run(layer)
        (g,) = torch.autograd.grad(y.sin().sum(), x)
        found.append((y, g, layer.running_mean, layer.running_var))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


def test_hooks_on_the_layer_still_run() -> None:
    layer, x, seen = BatchNorm2d(4).eval(), torch.randn(2, 4, 4, 4).contiguous(**LAST), []
    layer.mode = "batch"
    norm_pool_relu(layer, x)
    layer.register_forward_hook(lambda *_: seen.append(1))
    norm_pool_relu(layer, x)
    assert seen == [1]


def test_a_single_value_of_a_channel_is_refused_as_by_pytorch() -> None:
    layer = BatchNorm2d(3)
    set_running_statistics(layer, False)
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        layer(torch.randn(1, 3, 1, 1, requires_grad=True))


def test_a_hook_on_the_gradient_of_the_norm_is_called() -> None:
    norm, called = BatchNorm2d(3), []
    set_running_statistics(norm, False)
    norm.register_full_backward_hook(lambda *_: called.append(1))
    x = torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last).requires_grad_()
    norm_pool_relu(norm, x).sum().backward()
    assert called
