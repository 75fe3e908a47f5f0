"""Intermediate features by the names of stages, of our own networks and of others'."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from metakd.errors import UserError
from metakd.models.cnn import CNN
from metakd.models.conv4 import Conv4
from metakd.models.features import feature_shapes, recorded_features, stages_of
from metakd.models.mlp import MLP
from metakd.models.network import Network, embed
from metakd.models.resnet8 import ResNet8
from metakd.models.resnet12 import ResNet12
from metakd.models.torchvision_model import TorchvisionModel
from metakd.models.wrn import WRN

SHAPE = (3, 32, 32)


@pytest.mark.parametrize(
    ("backbone", "expected"),
    [
        (Conv4(SHAPE, width=8), [(8, 16, 16), (8, 8, 8), (8, 4, 4), (8, 2, 2)]),
        (ResNet12(SHAPE, widths=[4, 5, 6, 7]), [(4, 16, 16), (5, 8, 8), (6, 4, 4), (7, 2, 2)]),
        (ResNet8(SHAPE, width=4), [(4, 32, 32), (8, 16, 16), (16, 8, 8)]),
        (WRN(SHAPE, depth=16, width=1), [(16, 32, 32), (32, 16, 16), (64, 8, 8)]),
        (CNN(SHAPE, width=4), [(4, 32, 32), (8, 16, 16), (8,)]),
        (MLP(SHAPE, width=5), [(5,), (5,)]),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, nn.Module) else "",
)
def test_stages_of_our_own_networks(backbone: nn.Module, expected: list[tuple[int, ...]]) -> None:
    names = list(stages_of(backbone))
    assert names == [f"stage{i + 1}" for i in range(len(expected))]
    before = {n: t.clone() for n, t in backbone.state_dict().items()}
    assert list(feature_shapes(backbone, names, SHAPE, "student").values()) == expected
    assert all(torch.equal(before[n], t) for n, t in backbone.state_dict().items())
    assert all(module.training for module in backbone.modules())


def test_the_last_stage_of_a_conv4_is_its_embedding() -> None:
    backbone, images = Conv4(SHAPE, width=8), torch.randn(5, *SHAPE)
    embeddings, features = embed(backbone, images, ["stage4", "blocks.0.conv"])
    torch.testing.assert_close(features["stage4"].flatten(1), embeddings, rtol=0, atol=0)
    assert features["blocks.0.conv"].shape == (5, 8, 32, 32)
    embed(backbone, images)
    assert not any(module._forward_hooks for module in backbone.modules())


def test_a_network_gives_features_that_a_gradient_flows_through() -> None:
    network = Network(ResNet8(SHAPE, width=4), 3)
    prediction = network(torch.randn(4, *SHAPE), ["stage2"])
    prediction.features["stage2"].square().sum().backward()
    stages = network.backbone.get_submodule("stages")
    assert stages[1].conv1.weight.grad is not None  # type: ignore[index]
    assert stages[2].conv1.weight.grad is None  # type: ignore[index]
    assert network(torch.randn(4, *SHAPE)).features == {}


def test_stages_of_others_are_their_children() -> None:
    backbone = TorchvisionModel(SHAPE, model="resnet18")
    assert {"layer1", "layer4", "avgpool"} <= set(stages_of(backbone))
    shapes = feature_shapes(backbone, ["layer2", "model.layer1.0"], SHAPE, "teacher")
    assert shapes == {"layer2": (128, 4, 4), "model.layer1.0": (64, 8, 8)}


def test_a_path_from_a_stage_on() -> None:
    others = TorchvisionModel((3, 32, 32), model="resnet18")
    names = ["layer1.0.bn2", "model.layer1.0.bn2"]
    with recorded_features(others, names) as found:
        others(torch.randn(2, 3, 32, 32))
    assert torch.equal(*(found[name] for name in names))
    with pytest.raises(UserError, match=r"no stage 'layer1\.9'"):
        feature_shapes(others, ["layer1.9"], (3, 32, 32), "the teacher")


def test_an_unknown_stage_is_named_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"the student has no stage 'stage9'; .*stage1, .*stage4"):
        feature_shapes(Conv4(SHAPE), ["stage9"], SHAPE, "the student")
    with (
        pytest.raises(UserError, match="Conv4 has no stage 'x'"),
        recorded_features(Conv4(SHAPE), ["x"]),
    ):
        pass


def test_a_stage_that_is_not_used_gives_nothing() -> None:
    with pytest.raises(UserError, match=r"stage 'norms\.0' does not give one tensor"):
        feature_shapes(MLP(SHAPE), ["norms.0"], SHAPE, "student")


def test_features_that_are_overwritten_in_place_are_refused() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(inplace=True), nn.Flatten())
    with pytest.raises(UserError, match=r"the student: what stage '0' gives is overwritten"):
        feature_shapes(network, ["0"], (1, 2, 2), "the student")
    assert feature_shapes(network, ["1"], (1, 2, 2), "the student") == {"1": (2, 2, 2)}
