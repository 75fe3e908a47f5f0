"""Backward passes written out are those of autograd."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from metakd.exporting.graphs.backward_rules import (
    batch_norm,
    batch_norm_backward,
    convolution_backward,
    max_pool_backward,
)

CONVOLUTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "padded": {"padding": (1, 2)},
    "strided": {"stride": (2, 3), "padding": (1, 0)},  # the last rows are reached by no filter
    "dilated": {"dilation": (2, 1), "padding": (2, 1), "stride": (1, 2)},
    "grouped": {"groups": 2, "padding": (1, 1)},
    "depthwise": {"groups": 4, "stride": (2, 2), "padding": (1, 1)},
}


def numbers(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution(name: str) -> None:
    settings = CONVOLUTIONS[name]
    x, bias = numbers(3, 4, 10, 9).requires_grad_(), numbers(6 - 2).requires_grad_()
    weight = numbers(4, 4 // settings.get("groups", 1), 3, 2, seed=1).requires_grad_()
    y = F.conv2d(x, weight, bias, **settings)
    gradient = numbers(*y.shape, seed=2)
    wanted = torch.autograd.grad(y, [x, weight, bias], gradient)
    full = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1} | settings
    given = (full["stride"], full["padding"], full["dilation"], False, (0, 0), full["groups"])
    found = convolution_backward(gradient, x, weight, [4], *given, (True, True, True))
    for one, other in zip(found, wanted, strict=True):
        assert one is not None
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm(training: bool) -> None:
    x = (2.0 + numbers(3, 4, 5, 2)).requires_grad_()
    weight, bias = numbers(4, seed=1).requires_grad_(), numbers(4, seed=2).requires_grad_()
    running = None if training else numbers(4, seed=3)
    spread = None if training else numbers(4, seed=4).square() + 0.5
    y = F.batch_norm(x, running, spread, weight, bias, training, 0.1, 1e-3)
    found, mean, inverse = batch_norm(x, weight, bias, running, spread, training, 0.1, 1e-3)
    torch.testing.assert_close(found, y)
    gradient = numbers(*y.shape, seed=5)
    wanted = torch.autograd.grad(y, [x, weight, bias], gradient)
    back = batch_norm_backward(
        gradient, x, weight, running, spread, mean, inverse, training, 1e-3, (True, True, True)
    )
    for one, other in zip(back, wanted, strict=True):
        assert one is not None
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(2, 2, 0), (3, 2, 1)])
def test_max_pool(kernel: int, stride: int, padding: int) -> None:
    x = numbers(2, 3, 7, 6).relu().requires_grad_()  # many equal numbers: the first one wins
    y, index = F.max_pool2d_with_indices(x, kernel, stride, padding)
    gradient = numbers(*y.shape, seed=1)
    (wanted,) = torch.autograd.grad(y, x, gradient)
    two = ([kernel] * 2, [stride] * 2, [padding] * 2, [1, 1])
    torch.testing.assert_close(max_pool_backward(gradient, x, *two, False, index), wanted)
