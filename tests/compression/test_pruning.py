import copy

import pytest
import torch
from torch import nn

from metakd.compression.budget import Budget, bytes_of, uniform
from metakd.compression.layers import describe
from metakd.compression.pruning import prune
from metakd.compression.strategy import Strategy
from metakd.compression.structure import Structure, rebuilt, structure_of
from metakd.errors import UserError
from metakd.models.conv4 import Conv4
from metakd.models.cost import multiply_adds
from metakd.models.mobilenet_small import MobileNetSmall
from metakd.models.resnet8 import ResNet8

pytest.importorskip("torch_pruning")

SHAPE = (3, 16, 16)
IMAGES = torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(0))


def conv4(width: int = 4) -> Conv4:
    torch.manual_seed(0)
    return Conv4(SHAPE, width=width).eval()


def test_channels_that_do_nothing_go_and_nothing_else_changes() -> None:
    network = conv4()
    dead = network.blocks[1]
    with torch.no_grad():
        for channel in (0, 2):
            dead.conv.weight[channel] = 0.0
            dead.norm.weight[channel] = dead.norm.bias[channel] = 0.0
    smaller = prune(copy.deepcopy(network), Strategy().with_keep({"blocks.1.conv": 0.5}), IMAGES)
    assert smaller.blocks[1].conv.weight.shape == (2, 4, 3, 3)
    assert smaller.blocks[2].conv.weight.shape == (4, 2, 3, 3)
    assert torch.allclose(smaller(IMAGES), network(IMAGES), atol=1e-6)
    assert torch.equal(smaller.blocks[1].conv.weight, dead.conv.weight[[1, 3]])


def test_taylor_takes_the_channel_of_the_smallest_change() -> None:
    network = conv4()
    gradients = {name: torch.ones_like(p) for name, p in network.named_parameters()}
    for name in ("blocks.0.conv.weight", "blocks.0.norm.weight", "blocks.0.norm.bias"):
        gradients[name][3] = 0.0
    gradients["blocks.1.conv.weight"][:, 3] = 0.0
    kept = network.blocks[0].conv.weight[:3].clone()
    strategy = Strategy().with_keep({"blocks.0.conv": 0.75})
    smaller = prune(copy.deepcopy(network), strategy, IMAGES, gradients=gradients)
    assert torch.equal(smaller.blocks[0].conv.weight, kept)
    assert all(p.grad is None for p in smaller.parameters())


def test_the_embedding_stays_unless_it_is_asked_for() -> None:
    layers = {layer.name: layer for layer in describe(conv4(), IMAGES)}
    assert layers["blocks.3.conv"].pruned_with is None
    assert layers["blocks.2.conv"].pruned_with == "blocks.2.conv"
    first = layers["blocks.0.conv"]
    assert (first.inputs, first.outputs, first.kernel, first.groups) == (3, 4, 9, 1)
    assert (first.parameters, first.macs) == (3 * 4 * 9, 3 * 4 * 9 * 16 * 16)
    smaller = prune(conv4(), Strategy().with_keep({"blocks.3.conv": 0.5}), IMAGES, embedding=True)
    assert smaller(IMAGES).shape == (2, 2)
    assert (smaller.embedding_size, smaller.map_shape) == (2, (2, 1, 1))


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: Conv4(SHAPE, width=8, norm="group"), id="groups"),
        pytest.param(lambda: MobileNetSmall(SHAPE, width=4), id="depthwise"),
        pytest.param(lambda: ResNet8(SHAPE, width=4), id="residual"),
    ],
)
def test_it_is_built_again_from_plain_values(make: object) -> None:
    torch.manual_seed(0)
    original = make().eval()  # type: ignore[operator]
    strategy = uniform(original, IMAGES, Budget(macs=0.6), prunes=True)
    smaller = prune(copy.deepcopy(original), strategy, IMAGES)
    before, after = (multiply_adds(n, SHAPE) for n in (original, smaller))
    assert 0.3 * before < after <= 0.6 * before
    structure = Structure.from_text(structure_of(smaller, original).text())
    again = rebuilt(make(), structure)  # type: ignore[operator]
    again.load_state_dict(smaller.state_dict())
    assert torch.equal(again.eval()(IMAGES), smaller(IMAGES))
    with pytest.raises(ValueError, match="no such layer"):
        rebuilt(nn.Sequential(nn.Linear(2, 2)), structure)


def test_the_uniform_strategy_is_just_within_the_budget() -> None:
    network = conv4(8)
    strategy = uniform(network, IMAGES, Budget(parameters=0.5), prunes=True)
    shares = {choice.keep for choice in strategy.layers.values()}
    assert len(shares) == 1

    def parameters(keep: float) -> int:
        layers = dict.fromkeys(strategy.layers, keep)
        smaller = prune(copy.deepcopy(network), Strategy().with_keep(layers), IMAGES)
        return sum(p.numel() for p in smaller.parameters())

    most = 0.5 * sum(p.numel() for p in network.parameters())
    (keep,) = shares
    assert parameters(keep) <= most < parameters(keep + 1 / 8)


def test_a_budget_that_cannot_be_met_says_the_smallest_that_can() -> None:
    with pytest.raises(UserError, match=r"smallest share .* (0\.\d+).*compress\.macs=\1 or more"):
        uniform(conv4(), IMAGES, Budget(macs=0.01), prunes=True)
    with pytest.raises(UserError, match=r"integers do not change.*prune_quantize"):
        uniform(conv4(), IMAGES, Budget(macs=0.5), prunes=False, bits=8)


def test_bytes_count_integers_and_their_scales() -> None:
    layer = nn.Sequential(nn.Linear(10, 3))
    assert bytes_of(layer, {}) == 4 * (30 + 3)
    assert bytes_of(layer, {"0": 8}) == 30 + 4 * 3 + 4 * 3
    assert bytes_of(layer, {"0": 4}) == 15 + 4 * 3 + 4 * 3
