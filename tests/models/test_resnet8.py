"""ResNet-8."""

from __future__ import annotations

import torch

from metakd.models.resnet8 import ResNet8


def test_parameters_of_the_cifar_family() -> None:
    # 78,042 with the linear layer for ten classes that the backbone lacks
    parameters = sum(p.numel() for p in ResNet8((3, 32, 32)).parameters())
    assert parameters + 64 * 10 + 10 == 78_042


def test_shapes_and_width() -> None:
    net = ResNet8((1, 28, 28), width=4)
    assert net.embedding_size == 16
    assert net(torch.randn(2, 1, 28, 28)).shape == (2, 16)
    assert net.stages(torch.randn(2, 4, 28, 28)).shape == (2, 16, 7, 7)


def test_initial_weights_are_hes_and_follow_the_seed() -> None:
    torch.manual_seed(3)
    first = ResNet8((3, 32, 32), width=64)
    torch.manual_seed(3)
    second = ResNet8((3, 32, 32), width=64)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    weight = first.stages[2].conv2.weight
    expected = (2 / (9 * weight.shape[0])) ** 0.5
    assert abs(weight.std().item() / expected - 1) < 0.01
