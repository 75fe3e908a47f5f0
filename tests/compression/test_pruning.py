import copy

import pytest
import torch
from torch import nn

from metakd.compression.budget import Budget, uniform
from metakd.compression.layers import describe
from metakd.compression.measuring import bytes_of
from metakd.compression.pruning import prune
from metakd.compression.quantize import freeze, quantize
from metakd.compression.strategy import FLOAT, Strategy
from metakd.compression.structure import Structure, rebuilt, structure_of
from metakd.errors import UserError
from metakd.models.conv4 import Conv4
from metakd.models.cost import multiply_adds, saved_bytes
from metakd.models.mobilenet_small import MobileNetSmall
from metakd.models.resnet8 import ResNet8
from metakd.models.transformer import Transformer

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
        pytest.param(lambda: Conv4(SHAPE, width=8, projection=4), id="projection"),
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
    layer, rows = nn.Sequential(nn.Linear(10, 3)), torch.rand(2, 10)
    layer.embedding_size = 3
    ranges = 3 * 5  # of what comes in and goes out, and of the embedding
    assert bytes_of(layer, rows, {}) == 4 * (30 + 3)
    assert bytes_of(layer, rows, {"0": 8}) == 30 + 4 * 3 + 4 * 3 + ranges
    assert bytes_of(layer, rows, {"0": 4}) == 15 + 4 * 3 + 4 * 3 + ranges
    # Batch norm becomes the bias of the layer before it, which had none.
    network = conv4()
    own = bytes_of(network, IMAGES, {}) - bytes_of(network, IMAGES, {"blocks.0.conv": 8})
    norm = sum(
        4 * t.numel() if t.dim() else 8 for t in network.blocks[0].norm.state_dict().values()
    )
    assert own == (4 - 1) * (3 * 4 * 9) + norm - 2 * 4 * 4 - ranges
    integers = freeze(
        quantize(copy.deepcopy(network), Strategy().with_bits(8, ["blocks.0.conv"]), [IMAGES])
    )
    assert saved_bytes(integers) == bytes_of(network, IMAGES, {"blocks.0.conv": 8})


def test_the_uniform_strategy_is_that_of_networks_that_are_built(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for budget, bits in ((Budget(macs=0.3), FLOAT), (Budget(bytes=0.15), 8)):
        network = conv4(8)
        found = uniform(network, IMAGES, budget, prunes=True, bits=bits)
        with monkeypatch.context() as patch:
            patch.setattr("metakd.compression.budget._counted", lambda *_: None)
            assert uniform(network, IMAGES, budget, prunes=True, bits=bits) == found


def test_attention_keeps_its_channels() -> None:
    torch.manual_seed(0)
    network = Transformer((8,), width=8, heads=2, vocabulary=300, length=8).eval()
    texts = torch.randint(1, 300, (3, 8), generator=torch.Generator().manual_seed(0))
    pruned = {layer.name for layer in describe(network, texts) if layer.pruned_with is not None}
    assert pruned == {"layers.0.up", "layers.1.up"}
    with torch.no_grad():
        network.layers[0].up.weight[::2] = 0.0
        network.layers[0].up.bias[::2] = 0.0
    smaller = prune(copy.deepcopy(network), Strategy().with_keep({"layers.0.up": 0.5}), texts)
    assert smaller.layers[0].down.in_features == 16
    assert torch.allclose(smaller(texts), network(texts), atol=1e-6)


def test_a_parameter_without_a_gradient_changes_nothing() -> None:
    network = conv4()
    gradients = {name: torch.ones_like(p) for name, p in network.named_parameters()}
    zeros = {
        name: torch.zeros_like(p) if name.startswith("blocks.0") else p
        for name, p in gradients.items()
    }
    fewer = {name: p for name, p in gradients.items() if not name.startswith("blocks.0")}
    strategy = Strategy().with_keep({"blocks.0.conv": 0.5, "blocks.1.conv": 0.5})
    one, other = (
        prune(copy.deepcopy(network), strategy, IMAGES, gradients=given) for given in (zeros, fewer)
    )
    assert torch.equal(one(IMAGES), other(IMAGES))
