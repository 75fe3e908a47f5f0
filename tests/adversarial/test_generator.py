"""The hypernetwork: scale, dependence on noise and network, cost."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from metakd.adversarial.generator import ChunkedHypernetwork, gaussian_noise, he_scale
from metakd.models.conv4 import Conv4

SHAPES = {
    "teacher": {
        "conv.weight": torch.Size([24, 3, 3, 3]),
        "norm.weight": torch.Size([24]),
        "norm.bias": torch.Size([24]),
        "head.weight": torch.Size([5, 96]),
        "head.bias": torch.Size([5]),
    },
    "student": {"body.weight": torch.Size([30, 12]), "body.bias": torch.Size([30])},
}


def _made(scale: float = 0.01, seed: int = 0, **settings: int) -> ChunkedHypernetwork:
    torch.manual_seed(seed)
    return ChunkedHypernetwork(SHAPES, scale=scale, chunk_size=100, **settings)


def _relative(generator: ChunkedHypernetwork, noise: Tensor) -> Tensor:
    """All offsets in units of their own He scale, worked out here anew."""
    fan = {"conv": 27, "norm": 27, "head": 96, "body": 12}
    found = generator(noise)
    return torch.cat([
        value.flatten() / math.sqrt(2 / fan[name.split(".")[0]])
        for named in found.values() for name, value in named.items()
    ])  # fmt: skip


def test_names_and_shapes() -> None:
    found = _made()(gaussian_noise(32, 0, 0))
    shapes = {who: {n: v.shape for n, v in named.items()} for who, named in found.items()}
    assert shapes == SHAPES
    assert [list(named) for named in found.values()] == [list(s) for s in SHAPES.values()]


@pytest.mark.parametrize(("scale", "width"), [(0.01, 64), (1.0, 64), (0.01, 8)])
def test_offsets_start_at_their_share_of_he_scale(scale: float, width: int) -> None:
    for seed in range(3):
        generator = _made(scale, seed, width=width)
        for index in range(8):
            relative = _relative(generator, gaussian_noise(32, seed, index))
            # Whole chunks are exact; the end of each network's last one is cut off.
            assert relative.square().mean().sqrt().item() == pytest.approx(scale, rel=0.05)


def test_whole_chunks_are_at_no_more_than_their_share() -> None:
    torch.manual_seed(0)
    shapes = {"student": {"w": torch.Size([64, 64, 1])}}  # 8 chunks of 512
    generator = ChunkedHypernetwork(shapes)
    for index in range(4):
        rms = generator(gaussian_noise(32, 0, index))["student"]["w"].square().mean().sqrt()
        share = (rms / math.sqrt(2 / 64)).item()
        assert share <= 0.01 * (1 + 1e-6)
        assert share == pytest.approx(0.01, rel=5e-3)


def test_he_scale_by_hand() -> None:
    assert he_scale(torch.Size([8, 2, 3, 3]), 999) == pytest.approx(math.sqrt(2 / 18))
    assert he_scale(torch.Size([8]), 50) == pytest.approx(0.2)
    # A vector before any weight takes the first weight's.
    shapes = {"student": {"scale": torch.Size([4]), "w": torch.Size([3, 200])}}
    assert ChunkedHypernetwork(shapes).scales["student"]["scale"] == pytest.approx(0.1)


def test_noise_decides_and_nothing_else() -> None:
    generator = _made()
    first = _relative(generator, gaussian_noise(32, 0, 0))
    torch.testing.assert_close(
        first, _relative(generator, gaussian_noise(32, 0, 0)), rtol=0, atol=0
    )
    each = torch.stack([_relative(generator, gaussian_noise(32, 0, i)) for i in range(16)])
    spread = each.var(0).mean().sqrt() / each.square().mean().sqrt()
    assert spread > 0.3


def test_networks_differ_by_their_condition() -> None:
    torch.manual_seed(0)
    same = {"w": torch.Size([10, 10])}
    generator = ChunkedHypernetwork({"teacher": same, "student": same}, chunk_size=100)
    with torch.no_grad():
        generator.embeddings[1] = generator.embeddings[0]
    noise = gaussian_noise(32, 0, 0)
    found = generator(noise)
    assert (found["teacher"]["w"] - found["student"]["w"]).abs().max() > 1e-4
    with torch.no_grad():
        generator.conditions[1] = generator.conditions[0]
    found = generator(noise)
    torch.testing.assert_close(found["teacher"]["w"], found["student"]["w"])


def test_chunks_are_those_of_the_trunk_in_order() -> None:
    generator = _made()
    noise = gaussian_noise(32, 0, 3)
    assert list(generator.network) == [0] * 12 + [1] * 4  # 1181 and 390 parameters
    whole = [
        generator.last(generator.trunk(torch.cat([noise, embedding, generator.conditions[0]])))
        for embedding in generator.embeddings[:12]
    ]
    start = 24 * 27 + 48 + 480
    expected = 0.01 * math.sqrt(2 / 96) * torch.cat(whole)[start : start + 5]
    torch.testing.assert_close(generator(noise)["teacher"]["head.bias"], expected)


def test_every_parameter_learns_and_float64_differences() -> None:
    torch.manual_seed(0)
    shapes = {"t": {"w": torch.Size([3, 4])}, "s": {"w": torch.Size([2, 2]), "b": torch.Size([2])}}
    generator = ChunkedHypernetwork(
        shapes, noise_size=3, chunk_size=5, embedding_size=2, width=4, scale=1.0
    ).double()
    noise = torch.randn(3, dtype=torch.float64)
    values = {name: p.detach().requires_grad_() for name, p in generator.named_parameters()}

    def total(*given: Tensor) -> Tensor:
        found = torch.func.functional_call(
            generator, dict(zip(values, given, strict=True)), (noise,)
        )
        return torch.cat([v.flatten() for named in found.values() for v in named.values()])

    assert torch.autograd.gradcheck(total, tuple(values.values()))
    total(*values.values()).square().sum().backward()
    assert all(v.grad is not None and v.grad.abs().sum() > 0 for v in values.values())


def test_noise_is_a_pure_function_of_seed_and_index() -> None:
    first = gaussian_noise(2000, 3, 5)
    torch.manual_seed(1)
    assert torch.equal(first, gaussian_noise(2000, 3, 5))
    for other in (gaussian_noise(2000, 3, 6), gaussian_noise(2000, 4, 5)):
        assert (first * other).mean().abs() < 0.1
    assert abs(first.mean()) < 0.1
    assert abs(first.std() - 1) < 0.05


def test_it_is_smaller_than_what_it_generates() -> None:
    nets: dict[str, nn.Module] = {
        "teacher": Conv4((1, 28, 28), width=64), "student": Conv4((1, 28, 28), width=32),
    }  # fmt: skip
    shapes = {who: {n: p.shape for n, p in net.named_parameters()} for who, net in nets.items()}
    generator = ChunkedHypernetwork(shapes)
    own = sum(p.numel() for p in generator.parameters())
    # 275 chunks' embeddings, 2 conditions, the trunk, its norm, the last layer.
    assert own == 275 * 16 + 2 * 16 + 2 * (64 * 64 + 64) + 128 + 65 * 512
    emitted = sum(p.numel() for net in nets.values() for p in net.parameters())
    assert own < emitted / 2


def test_state_is_parameters_alone_and_comes_back() -> None:
    generator, other = _made(seed=0), _made(seed=1)
    assert set(generator.state_dict()) == {n for n, _ in generator.named_parameters()}
    other.load_state_dict(generator.state_dict())
    noise = gaussian_noise(32, 0, 0)
    torch.testing.assert_close(_relative(other, noise), _relative(generator, noise))
