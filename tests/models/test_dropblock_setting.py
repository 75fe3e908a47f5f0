"""`dropblock`: the same setting of three networks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from metakd.errors import UserError
from metakd.models.conv4 import Conv4
from metakd.models.dropblock import DropBlock
from metakd.models.features import recorded_features
from metakd.models.randomness import is_random
from metakd.models.resnet12 import ResNet12
from metakd.models.wrn import WRN

NETWORKS: dict[str, dict[str, Any]] = {
    "conv4": {"build": Conv4, "width": 4},
    "resnet12": {"build": ResNet12, "width": 4},
    "wrn": {"build": WRN, "depth": 10, "width": 1},
}


def build(name: str, pixels: int = 32, **settings: Any) -> nn.Module:
    given = {**NETWORKS[name], **settings}
    torch.manual_seed(0)
    network = given.pop("build")((3, pixels, pixels), **given)
    assert isinstance(network, nn.Module)
    return network


def squares(network: nn.Module) -> list[DropBlock]:
    return [m for m in network.modules() if isinstance(m, DropBlock)]


@pytest.mark.parametrize("name", list(NETWORKS))
def test_squares_are_dropped_after_the_last_two_stages_in_training(name: str) -> None:
    network, images = build(name, dropblock=0.3, block_size=1), torch.rand(64, 3, 32, 32)
    last = list(network.stage_paths)  # type: ignore[arg-type]
    with recorded_features(network, last) as dropped:
        network(images)
    zeros = {stage: float((dropped[stage] == 0).double().mean()) for stage in last}
    plain = build(name)
    with recorded_features(plain, last) as whole:
        plain(images)
    before = {stage: float((whole[stage] == 0).double().mean()) for stage in last}
    assert [zeros[s] == before[s] for s in last[:-2]] == [True] * (len(last) - 2)
    for stage in last[-2:]:  # of those that are not 0 anyway 0.3 less what overlaps
        share = (zeros[stage] - before[stage]) / (1 - before[stage])
        assert 0.2 < share < 0.35
    judged = build(name, dropblock=0.3).eval()(images[:2])
    assert torch.equal(judged, build(name).eval()(images[:2]))


@pytest.mark.parametrize("name", list(NETWORKS))
def test_it_is_off_by_default_and_its_squares_follow_the_images(name: str) -> None:
    assert not squares(build(name))
    assert not squares(build(name, dropblock=0.0))
    assert not is_random(build(name).train())
    assert is_random(build(name, dropblock=0.1).train())
    assert {b.size for b in squares(build(name, dropblock=0.1))} == {2}
    assert {b.size for b in squares(build(name, 64, dropblock=0.1))} == {5}
    assert {b.size for b in squares(build(name, dropblock=0.1, block_size=3))} == {3}
    names = build(name).state_dict().keys()
    assert build(name, dropblock=0.1).state_dict().keys() == names


def test_of_resnet12_it_takes_the_place_of_its_dropout() -> None:
    assert [b.probability for b in squares(build("resnet12", dropout=0.1))] == [0.1]
    assert [b.probability for b in squares(build("resnet12", dropout=0.1, dropblock=0.2))] == [0.2]
    assert not squares(build("resnet12", dropout=0.1, dropblock=0.0))


@pytest.mark.parametrize("settings", [{"dropblock": 1.0}, {"dropblock": 0.1, "block_size": 0}])
def test_what_is_none_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(reversed(settings)))):
        build("conv4", **settings)
