"""The small depthwise-separable network."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from metakd.errors import UserError
from metakd.models.features import feature_shapes
from metakd.models.mobilenet_small import MobileNetSmall
from metakd.models.normalization import batchnorm_mode


def block(inputs: int, outputs: int) -> int:
    """Parameters of an inverted residual of expansion 4 with batch norms, by hand."""
    inner = 4 * inputs
    return inputs * inner + 9 * inner + inner * outputs + 2 * (2 * inner + outputs)


def test_parameters_and_shapes() -> None:
    net = MobileNetSmall((3, 32, 32), width=4)
    stem, widen = 3 * 9 * 4 + 2 * 4, 32 * 64 + 2 * 64
    blocks = [(4, 4), (4, 8), (8, 8), (8, 16), (16, 16), (16, 32), (32, 32)]
    expected = stem + sum(block(*each) for each in blocks) + widen
    assert sum(p.numel() for p in net.parameters()) == expected
    assert net(torch.randn(2, 3, 32, 32)).shape == (2, net.embedding_size) == (2, 64)
    shapes = feature_shapes(net, ["stage1", "stage2", "stage4"], (3, 32, 32), "it")
    assert shapes == {"stage1": (4, 32, 32), "stage2": (8, 16, 16), "stage4": (32, 4, 4)}


def test_large_images_are_halved_first_and_widths_are_chosen() -> None:
    net = MobileNetSmall((1, 84, 84), widths=[2, 3, 4, 5], norm="group")
    shapes = feature_shapes(net, ["stage1", "stage4"], (1, 84, 84), "it")
    assert shapes == {"stage1": (2, 42, 42), "stage4": (5, 6, 6)}
    assert net.conv.bias is not None  # group norm does not take a bias away
    assert not any(isinstance(m, nn.BatchNorm2d) for m in net.modules())
    assert MobileNetSmall((1, 28, 28)).stages[0][0].project.out_channels == 16
    with pytest.raises(UserError, match="8x8 pixels or more"):
        MobileNetSmall((3, 4, 4))


def test_a_block_adds_its_input_where_it_can() -> None:
    net = MobileNetSmall((3, 16, 16), width=2).eval()
    same, halves = net.stages[1][1], net.stages[1][0]
    x = torch.randn(1, 4, 6, 6)
    nn.init.zeros_(same.project.weight)  # at the start, its norm passes 0 on
    assert torch.equal(same(x), x)
    assert halves(torch.randn(1, 2, 6, 6)).shape == (1, 4, 3, 3)


def test_depthwise_filters_start_as_large_as_they_should() -> None:
    torch.manual_seed(0)
    weight = MobileNetSmall((3, 32, 32), width=32).stages[3][1].depthwise.weight
    assert weight.shape == (1024, 1, 3, 3)
    assert weight.std().item() == pytest.approx((2 / 9) ** 0.5, rel=0.03)


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_second_order_gradients_under_vmap_are_those_of_a_loop(norm: str) -> None:
    """A stage, an inner step by each of two tasks; the outer gradient, batched and by backward."""
    torch.manual_seed(0)
    net = MobileNetSmall((1, 16, 16), width=2, norm=norm).stages[1].double().eval()
    values = {n: p.detach() for n, p in net.named_parameters()}
    shown, asked = torch.randn(2, 2, 3, 2, 6, 6, dtype=torch.float64).unbind()
    classes = torch.arange(3)

    def loss(at: dict[str, Tensor], images: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(net, at, (images,)).mean((2, 3)), classes)

    def outer(at: dict[str, Tensor], support: Tensor, query: Tensor) -> Tensor:
        step = grad(loss)(at, support)
        return loss({n: v - 0.1 * step[n] for n, v in at.items()}, query)

    with batchnorm_mode(net, "batch"):
        batched = vmap(grad(outer), in_dims=(None, 0, 0))(values, shown, asked)
        for i in range(2):
            at = {n: v.clone().requires_grad_() for n, v in values.items()}
            taken = torch.autograd.grad(loss(at, shown[i]), [*at.values()], create_graph=True)
            moved = {n: v - 0.1 * g for (n, v), g in zip(at.items(), taken, strict=True)}
            loss(moved, asked[i]).backward()
            for name, value in at.items():
                torch.testing.assert_close(
                    batched[name][i], value.grad, rtol=1e-8, atol=1e-11, msg=name
                )
