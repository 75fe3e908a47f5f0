import copy
import warnings

import pytest
import torch
from torch import nn

from metakd.compression.apply import apply
from metakd.compression.deployed import onnx_bytes, session
from metakd.compression.quantize import freeze, quantizable_layers, quantize, recalibrate, running
from metakd.compression.quantized import (
    ActivationRange,
    Quantized,
    QuantizedLayer,
    _packed,
    _unpacked,
)
from metakd.compression.strategy import Strategy
from metakd.compression.structure import Structure, rebuilt, structure_of
from metakd.errors import UserError
from metakd.models.conv4 import Conv4
from metakd.models.mobilenet_small import MobileNetSmall
from metakd.models.normalization import BatchNorm2d

SHAPE = (3, 16, 16)
DRAWN = torch.Generator().manual_seed(0)
BATCHES = [torch.randn(8, *SHAPE, generator=DRAWN) for _ in range(2)]


def conv4() -> Conv4:
    torch.manual_seed(0)
    network = Conv4(SHAPE, width=8)
    recalibrate(network, BATCHES)
    return network.eval()


class Added(nn.Module):
    """The first convolution's output is normalised, and added to something as it is, too."""

    embedding_size = 4

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3)
        self.norm1 = BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 4, 1)
        self.norm2 = BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv1(x)
        return (x + self.norm2(self.conv2(self.norm1(x).relu()))).mean((2, 3))


def all_layers(network: nn.Module, bits: int = 8) -> Strategy:
    return Strategy().with_bits(bits, quantizable_layers(network))


def test_a_range_by_hand() -> None:
    rounding = ActivationRange()
    rounding.observing = True
    rounding(torch.tensor([-1.0, 1.55]))
    rounding.settle()
    assert float(rounding.scale) == pytest.approx(0.01)
    assert int(rounding.zero_point) == -28  # -128 + 100
    found = rounding(torch.tensor([-9.0, 0.0, 0.014, 0.016, 9.0]))
    assert found.tolist() == pytest.approx([-1.0, 0.0, 0.01, 0.02, 1.55], abs=1e-6)
    trained = torch.tensor([-9.0, 0.014], requires_grad=True)
    rounding(trained).sum().backward()
    assert trained.grad is not None
    assert trained.grad.tolist() == [0.0, 1.0]  # what is cut off has no gradient


def test_a_layer_by_hand() -> None:
    layer = nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.27, -0.634], [0.0, 0.254]]))
        layer.bias.copy_(torch.tensor([0.5, 0.0]))
    whole = QuantizedLayer(layer, 8).frozen()
    assert whole.scales.tolist() == pytest.approx([0.01, 0.002])
    assert whole.integers.tolist() == [[127, -63], [0, 127]]
    whole.input.scale.fill_(0.5)
    whole.output = nn.Identity()  # type: ignore[assignment]
    # 1.2 -> 1.0, -0.8 -> -1.0
    expected = [1.27 + 0.63 + 0.5, -0.254]
    assert whole(torch.tensor([[1.2, -0.8]]))[0].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 8])
def test_few_bits_are_saved_in_few_bytes(bits: int) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(5, 3)
    whole = QuantizedLayer(copy.deepcopy(layer), bits)
    rounded = whole._weight().detach()
    whole.frozen()
    assert torch.allclose(whole._weight(), rounded)
    assert whole.integers.numel() == (8 if bits <= 4 else 15)
    assert len(rounded[0].unique()) <= 2**bits - 1


def test_all_integers_of_a_shared_byte_are_read_back() -> None:
    low, high = torch.meshgrid(torch.arange(-8, 8), torch.arange(-8, 8), indexing="ij")
    every = torch.stack([low, high], -1).flatten().to(torch.int8)
    assert torch.equal(_unpacked(_packed(every, 4), 4, (16, 32)), every.view(16, 32))


def test_rounding_goes_over_tasks_at_once() -> None:
    rounding, x = ActivationRange(), torch.linspace(-200.0, 200.0, 12).view(3, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # PyTorch warns where it takes one task after the other
        found = torch.func.vmap(rounding)(x)
    assert torch.equal(found, rounding(x))


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: Conv4(SHAPE, width=8), id="conv4"),
        pytest.param(lambda: MobileNetSmall(SHAPE, width=4), id="residual"),
        pytest.param(lambda: Added(), id="added"),
    ],
)
def test_it_answers_as_before_and_is_built_again(make: object) -> None:
    torch.manual_seed(0)
    network = make()  # type: ignore[operator]
    recalibrate(network, BATCHES)
    network.eval()
    smaller = apply(network, all_layers(network), BATCHES)
    with torch.no_grad():
        before, after = network(BATCHES[0]), smaller(BATCHES[0])
    off = float((after - before).norm() / (before - before.mean(0)).norm())
    assert 0 < off < 0.3
    structure = Structure.from_text(structure_of(smaller, network).text())
    again = rebuilt(make(), structure)  # type: ignore[operator]
    again.load_state_dict(smaller.state_dict())
    assert torch.equal(again.eval()(BATCHES[1]), smaller(BATCHES[1]))


def test_batch_norm_becomes_part_of_its_layer_only_where_nothing_else_sees_it() -> None:
    network = conv4()
    found = quantize(copy.deepcopy(network), all_layers(network), BATCHES)
    assert isinstance(found, Quantized)
    assert structure_of(freeze(found), network).folded == tuple(
        f"blocks.{i}.norm" for i in range(4)
    )
    other = Added().eval()
    found = freeze(quantize(copy.deepcopy(other), all_layers(other), BATCHES))
    assert structure_of(found, other).folded == ("norm2",)


def test_outputs_are_rounded_where_the_next_layer_would_round_them() -> None:
    network = conv4()
    found = quantize(copy.deepcopy(network), all_layers(network), BATCHES)
    layers = [m for m in found.modules() if isinstance(m, QuantizedLayer)]
    for layer, following in zip(layers, [m.input for m in layers[1:]], strict=False):
        assert torch.equal(layer.output.scale, following.scale)
        assert torch.equal(layer.output.zero_point, following.zero_point)


def test_statistics_are_the_mean_of_the_batches() -> None:
    network = conv4()
    norm = network.blocks[0].norm
    with torch.no_grad():
        network.blocks[0].conv.weight *= 3.0
    recalibrate(network, BATCHES)
    seen = [network.blocks[0].conv(batch).mean((0, 2, 3)) for batch in BATCHES]
    assert torch.allclose(norm.running_mean, (seen[0] + seen[1]) / 2, atol=1e-5)
    assert norm.momentum == 0.1
    assert not norm.training


def test_weights_can_be_trained_before_they_are_frozen() -> None:
    network = conv4()
    found = quantize(copy.deepcopy(network), all_layers(network, 2), BATCHES)
    target = network(BATCHES[0]).detach()
    parameters = [p for p in found.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=3e-3)
    errors = []
    for _ in range(15):
        loss = (found(BATCHES[0]) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        errors.append(float(loss.detach()))
    assert errors[-1] < 0.6 * errors[0]
    trained = found(BATCHES[0]).detach()
    assert torch.allclose(freeze(found)(BATCHES[0]), trained, atol=1e-4)


def test_onnx_runtime_answers_as_the_simulation_does() -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason="needs pip install 'metakd[onnx]' onnxscript")
    network = Added()
    recalibrate(network, BATCHES)
    smaller = apply(network.eval(), all_layers(network, 7), BATCHES)
    (answers,) = session(onnx_bytes(smaller, SHAPE)).run(None, {"images": BATCHES[1].numpy()})
    with running(smaller):
        off = (torch.from_numpy(answers) - smaller(BATCHES[1])).abs() / smaller.embedding.scale
    assert float(off.mean()) < 0.5


@pytest.mark.parametrize("bits", [2, 4])
def test_weights_that_share_a_byte_are_exported_as_they_are(bits: int) -> None:
    for name in ("onnx", "onnxscript"):
        pytest.importorskip(name, reason="needs pip install 'metakd[onnx]' onnxscript")
    from onnx import load_from_string
    from onnx.reference import ReferenceEvaluator

    network = Added()
    recalibrate(network, BATCHES)
    smaller = apply(network.eval(), all_layers(network, bits), BATCHES)
    # ONNX Runtime rounds biases too, coarsely with so few bits; the file itself is what counts.
    graph = ReferenceEvaluator(load_from_string(onnx_bytes(smaller, SHAPE)))
    (answers,) = graph.run(None, {"images": BATCHES[1].numpy()})
    with running(smaller):
        off = (torch.from_numpy(answers) - smaller(BATCHES[1])).abs() / smaller.embedding.scale
    assert float(off.mean()) < 0.5


class Seen(Conv4):
    """Does what PyTorch's exporter to ONNX does not know."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images) + images.view(torch.int32).sum() * 0.0


def test_a_network_that_cannot_be_exported_says_what_stands_in_the_way() -> None:
    for name in ("onnx", "onnxscript"):
        pytest.importorskip(name, reason="needs pip install 'metakd[onnx]' onnxscript")
    with pytest.raises(UserError, match="cannot be exported") as refused:
        onnx_bytes(Seen(SHAPE, width=4).eval(), SHAPE)
    said = str(refused.value)
    assert "view" in said
    assert all(word not in said for word in ("\x1b", "step 3/3", "\n"))
