"""The chunked hypernetwork: size, dependence on noise and network, gradients."""

from __future__ import annotations

import math

import pytest
import torch

from metakd.models.conv4 import Conv4
from metakd.models.generator import ChunkedHypernetwork, gaussian_noise, he_scale
from metakd.models.network import Network

SHAPES = {
    "teacher": {"a.weight": torch.Size([8, 4, 3, 3]), "a.bias": torch.Size([8])},
    "student": {"b.weight": torch.Size([5, 20])},
}


def generator(**settings: object) -> ChunkedHypernetwork:
    torch.manual_seed(0)
    return ChunkedHypernetwork(SHAPES, **{"chunk_size": 64, **settings})


def test_shapes() -> None:
    found = generator()(gaussian_noise(32, 0, 0))
    assert {w: {n: v.shape for n, v in p.items()} for w, p in found.items()} == SHAPES


def test_he_scale_by_hand() -> None:
    assert he_scale(torch.Size([8, 4, 3, 3]), 1) == pytest.approx(math.sqrt(2 / 36))
    assert he_scale(torch.Size([5, 20]), 1) == pytest.approx(math.sqrt(0.1))
    assert he_scale(torch.Size([8]), 36) == pytest.approx(math.sqrt(2 / 36))


@pytest.mark.parametrize("scale", [0.01, 1.0], ids=["offset", "full"])
def test_starts_at_its_share_of_he_scale(scale: float) -> None:
    """Of a real pair of networks, over noises: offsets at most 1 % of He scale, or He scale."""
    torch.manual_seed(1)
    shapes = {
        who: {n: p.shape for n, p in Network(Conv4((1, 28, 28), width=w), 5).named_parameters()}
        for who, w in (("teacher", 16), ("student", 8))
    }
    made = ChunkedHypernetwork(shapes, scale=scale)
    for who, named in shapes.items():
        for name, shape in named.items():
            if len(shape) < 2:
                continue
            values = torch.stack([made(gaussian_noise(32, 0, i))[who][name] for i in range(30)])
            relative = float(values.square().mean().sqrt()) / he_scale(shape, 1)
            assert 0.6 * scale < relative < 1.4 * scale, (who, name, relative)


def test_depends_on_noise_and_on_the_network() -> None:
    made = ChunkedHypernetwork({w: {"x": torch.Size([4, 8])} for w in ("teacher", "student")})
    with torch.no_grad():
        made.embeddings.copy_(made.embeddings[:1].expand_as(made.embeddings))  # same chunk
    one, other = (made(gaussian_noise(32, 0, i)) for i in (0, 1))
    assert not torch.allclose(one["teacher"]["x"], other["teacher"]["x"], rtol=0.1)
    assert not torch.allclose(one["teacher"]["x"], one["student"]["x"], rtol=0.1)
    assert torch.equal(one["teacher"]["x"], made(gaussian_noise(32, 0, 0))["teacher"]["x"])


def test_noise_is_a_function_of_seed_and_index() -> None:
    assert torch.equal(gaussian_noise(32, 3, 7), gaussian_noise(32, 3, 7))
    assert not torch.equal(gaussian_noise(32, 3, 7), gaussian_noise(32, 3, 8))
    assert not torch.equal(gaussian_noise(32, 3, 7), gaussian_noise(32, 4, 7))
    many = torch.stack([gaussian_noise(32, 0, i) for i in range(300)])
    assert abs(float(many.mean())) < 0.03
    assert abs(float(many.std()) - 1.0) < 0.03


def test_gradient_reaches_every_part() -> None:
    made = generator()
    found = made(gaussian_noise(32, 0, 0))
    torch.stack([v.square().sum() for p in found.values() for v in p.values()]).sum().backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.norm() > 0, name


def test_the_trunk_is_shared() -> None:
    """Ten times the parameters cost only their chunks' embeddings."""
    sizes = [
        sum(
            p.numel()
            for p in ChunkedHypernetwork(
                {"student": {"x": torch.Size([count, 64])}}, chunk_size=64
            ).parameters()
        )
        for count in (10, 100)
    ]
    assert sizes[1] - sizes[0] == 90 * 16


def test_chunk_size_acts() -> None:
    assert len(generator(chunk_size=32).embeddings) > len(generator(chunk_size=256).embeddings)
