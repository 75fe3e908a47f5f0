"""Conv-4: sizes of the document, strided or pooled, pooling before ReLU."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from metakd.errors import UserError
from metakd.models.conv4 import Conv4


@pytest.mark.parametrize(
    ("shape", "strided", "size", "parameters"),
    [
        ((1, 28, 28), False, 64, 111_680),
        ((1, 28, 28), True, 256, 111_680),
        ((3, 32, 32), False, 256, 112_832),
        ((3, 84, 84), False, 1600, 112_832),
    ],
)
def test_embedding_size_and_parameters(
    shape: tuple[int, ...], strided: bool, size: int, parameters: int
) -> None:
    net = Conv4(shape, strided=strided)
    assert net.embedding_size == size
    assert net(torch.randn(2, *shape)).shape == (2, size)
    # Without the 256 biases before batch norm that the published count of 111,936 includes.
    assert sum(p.numel() for p in net.parameters()) == parameters


@pytest.mark.parametrize(
    ("shape", "strided", "expected"),
    [
        ((1, 28, 28), False, (8, 1, 1)),
        ((1, 28, 28), True, (8, 2, 2)),
        ((3, 32, 48), False, (8, 2, 3)),
    ],
)
def test_the_embedding_is_a_map(
    shape: tuple[int, ...], strided: bool, expected: tuple[int, int, int]
) -> None:
    net, x = Conv4(shape, width=8, strided=strided).eval(), torch.randn(2, *shape)
    assert net.map_shape == expected
    assert torch.equal(net(x).unflatten(1, expected), net.blocks(x))
    assert Conv4(shape, strided=strided, average=True).map_shape is None


def test_average_of_the_last_map() -> None:
    flat = Conv4((1, 28, 28), width=8, strided=True).eval()
    mean = Conv4((1, 28, 28), width=8, strided=True, average=True).eval()
    mean.load_state_dict(flat.state_dict())
    x = torch.randn(3, 1, 28, 28)
    assert mean.embedding_size == 8
    torch.testing.assert_close(mean(x), flat(x).unflatten(1, (8, 4)).mean(2))


@pytest.mark.parametrize("average", [False, True])
def test_projection_is_a_linear_layer_on_the_last_map(average: bool) -> None:
    net = Conv4((3, 32, 32), width=8, average=average, projection=5).eval()
    bare = Conv4((3, 32, 32), width=8, average=average).eval()
    bare.load_state_dict({k: v for k, v in net.state_dict().items() if k != "projection.weight"})
    x = torch.randn(3, 3, 32, 32)
    assert net.embedding_size == 5
    assert net.map_shape is None
    assert net.projection is not None
    torch.testing.assert_close(net(x), bare(x) @ net.projection.weight.T)


@pytest.mark.parametrize("size", [0, -3, 2.0, True])
def test_projection_of_no_size_is_refused(size: object) -> None:
    with pytest.raises(UserError, match=r"options\.projection=.* whole number from 1"):
        Conv4((3, 32, 32), projection=size)  # type: ignore[arg-type]


def test_it_is_convolution_norm_relu_pool() -> None:
    torch.manual_seed(0)
    net = Conv4((3, 32, 32), widths=[4, 6, 8, 10]).double()
    reference = nn.Sequential()
    for block in copy.deepcopy(net.blocks):
        norm = nn.BatchNorm2d(block.conv.out_channels).double()
        norm.load_state_dict(block.norm.state_dict())
        reference.extend([block.conv, norm, nn.ReLU(), nn.MaxPool2d(2)])
    x = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    ours, theirs = net(x), reference(x).flatten(1)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    target = torch.randn_like(ours)
    ours.backward(target)
    theirs.backward(target)
    for a, b in zip(net.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("norm", ["batch", "group", "layer", "none"])
def test_every_norm_and_a_bias_where_it_counts(norm: str) -> None:
    net = Conv4((1, 28, 28), width=8, norm=norm)
    assert (net.blocks[0].conv.bias is None) == (norm == "batch")
    assert net(torch.randn(2, 1, 28, 28)).isfinite().all()


def test_channels_last_gives_the_same() -> None:
    net = Conv4((3, 32, 32), width=8).eval()
    x = torch.randn(2, 3, 32, 32)
    plain = net(x)
    net = net.to(memory_format=torch.channels_last)
    torch.testing.assert_close(net(x.to(memory_format=torch.channels_last)), plain)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"widths": [8, 8]}, "has 2 entries; this network takes 4"),
        ({"width": 8, "widths": [8] * 4}, "both given"),
        ({"width": 0}, "at least 1"),
        ({"norm": "bach"}, "Did you mean 'batch'"),
    ],
)
def test_unusable_settings(settings: dict, says: str) -> None:
    with pytest.raises(UserError, match=says):
        Conv4((1, 28, 28), **settings)


@pytest.mark.parametrize(("shape", "says"), [((1, 8, 8), "16x16"), ((5,), "mlp")])
def test_unusable_examples(shape: tuple[int, ...], says: str) -> None:
    with pytest.raises(UserError, match=says):
        Conv4(shape)
