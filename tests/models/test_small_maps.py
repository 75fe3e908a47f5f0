"""A convolution over a small map is `nn.Conv2d`'s, up to second derivatives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metakd.models import small_maps
from metakd.models.small_maps import Conv3x3


def made(bias: bool) -> tuple[Conv3x3, nn.Conv2d]:
    ours, theirs = Conv3x3(5, 7, bias), nn.Conv2d(5, 7, 3, padding=1, bias=bias)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def gradients(layer: nn.Module, x: Tensor, number: torch.dtype) -> list[Tensor]:
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", number, number != torch.float32):
        y = layer(x)
    weight = torch.linspace(-1.0, 1.0, y.numel(), dtype=y.dtype).view_as(y)
    return [y, *torch.autograd.grad(y, [x, *layer.parameters()], weight)]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [(2, 2), (1, 3), (4, 4), (8, 8)])
@pytest.mark.parametrize("number", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_equals_pytorchs(
    bias: bool, size: tuple[int, int], number: torch.dtype, memory: torch.memory_format
) -> None:
    ours, theirs = made(bias)
    x = torch.randn(6, 5, *size).contiguous(memory_format=memory)
    tolerance = 1e-5 if number == torch.float32 else 0.02
    for own, other in zip(gradients(ours, x, number), gradients(theirs, x, number), strict=True):
        assert own.dtype == other.dtype
        torch.testing.assert_close(own, other, rtol=tolerance, atol=tolerance)


def test_second_derivatives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(small_maps._PIXELS, torch.float64, 4)
    layer = Conv3x3(2, 3).double()
    x = torch.randn(2, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    assert "ByTaps" in type(layer(x).grad_fn).__name__

    def through(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        named = {"weight": weight, "bias": bias}
        return torch.func.functional_call(layer, named, (x.tanh(),)).tanh()

    given = (x, *(p.detach().clone().requires_grad_() for p in layer.parameters()))
    assert torch.autograd.gradcheck(through, given)
    assert torch.autograd.gradgradcheck(through, given)


def test_where_torch_func_transforms_it_is_pytorchs() -> None:
    ours, theirs = made(True)
    x = torch.randn(3, 4, 5, 2, 2)
    assert torch.equal(torch.func.vmap(ours)(x), torch.func.vmap(theirs)(x))
    found = torch.func.grad(lambda x: ours(x).square().sum())(x[0])
    wanted = 2 * F.conv_transpose2d(theirs(x[0]), theirs.weight, padding=1)
    torch.testing.assert_close(found, wanted)
