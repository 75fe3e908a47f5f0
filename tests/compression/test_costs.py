import copy

import pytest
import torch
from torch import nn

from metakd.compression.budget import Budget, uniform
from metakd.compression.costs import COUNTED, Costs
from metakd.compression.measuring import measured
from metakd.compression.pruning import prune
from metakd.compression.space import Space
from metakd.compression.strategy import FLOAT, LayerChoice
from metakd.errors import UserError
from metakd.models.cnn import CNN
from metakd.models.conv4 import Conv4
from metakd.models.mobilenet_small import MobileNetSmall
from metakd.models.resnet8 import ResNet8

pytest.importorskip("torch_pruning")

SHAPE = (3, 16, 16)
IMAGES = torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(0))
DRAW = torch.Generator()


def conv4() -> Conv4:
    torch.manual_seed(0)
    return Conv4(SHAPE, widths=[6, 8, 8, 4]).eval()


@pytest.mark.parametrize(
    ("network", "embedding"),
    [
        (conv4(), False),
        (Conv4(SHAPE, width=6, norm="group").eval(), True),
        (CNN(SHAPE, width=6).eval(), False),
        (ResNet8(SHAPE, width=4).eval(), True),
        (MobileNetSmall(SHAPE, width=4).eval(), False),
    ],
    ids=["conv4", "group_norm", "cnn", "resnet8", "mobilenet"],
)
def test_counted_costs_are_those_of_the_pruned_network(network: nn.Module, embedding: bool) -> None:
    space = Space(Costs(network, IMAGES, embedding), Budget(macs=0.4, bytes=0.3), bits=8)
    _, found = space.draw(3, DRAW.manual_seed(1))
    strategy = space.strategy(found, 2)
    assert len({c.keep for c in strategy.layers.values()}) > 1
    smaller = prune(copy.deepcopy(network), strategy, IMAGES, embedding=embedding)
    bits = {name: c.bits for name, c in strategy.layers.items() if c.bits < FLOAT}
    counted = space.costs.count(found.kept[2:], found.bits[2:])
    assert {n: round(float(counted[n])) for n in COUNTED} == measured(
        smaller, IMAGES, dict.fromkeys(COUNTED, 1.0), bits
    )
    kept, read = space.costs.read(strategy)
    assert torch.equal(kept, found.kept[2])
    assert torch.equal(read, found.bits[2])


@pytest.mark.parametrize("budget", [Budget(macs=0.4), Budget(parameters=0.5), Budget(bytes=0.4)])
def test_candidates_are_just_within_the_budget(budget: Budget) -> None:
    space = Space(Costs(conv4(), IMAGES), budget)
    _, found = space.draw(64, DRAW.manual_seed(0))
    ((name, share),) = budget.shares.items()
    limit = share * space.costs.whole[name]
    assert (space.costs.count(found.kept)[name] <= limit).all()
    # One more channel of every group that is not whole would be too much.
    more = torch.minimum(found.kept + 1, space.costs.channels)
    assert (space.costs.count(more)[name] > limit).all()
    assert len(found.kept.unique(dim=0)) > 10
    exact = uniform(conv4(), IMAGES, budget, prunes=True)
    assert torch.equal(space.uniform().kept[0], space.costs.read(exact)[0])


def test_bits_differ_only_where_they_save_something() -> None:
    costs = Costs(conv4(), IMAGES)
    assert Space(costs, Budget(macs=0.5), bits=8).size == 3
    both = Space(costs, Budget(bytes=0.4), bits=8)
    assert both.size == 3 + 4
    assert both.uniform().bits.tolist() == [[8] * 4]
    alone = Space(costs, Budget(bytes=0.24), prunes=False, bits=8)
    _, found = alone.draw(16, DRAW.manual_seed(0))
    assert (found.kept == costs.channels).all()
    assert len(found.bits.unique()) > 3
    assert (costs.count(found.kept, found.bits)["bytes"] <= 0.24 * costs.whole["bytes"]).all()
    assert {c.keep for c in alone.strategy(found).layers.values()} == {1.0}


def test_what_no_shift_brings_within_becomes_uniform() -> None:
    costs = Costs(conv4(), IMAGES)
    least = costs.count(torch.ones(2, 3).double(), torch.tensor([[4] * 4, [8] * 4]))["bytes"]
    space = Space(costs, Budget(bytes=float(least.mean()) / costs.whole["bytes"]), bits=4)
    wide = torch.zeros(2, space.size)
    wide[0, 3:] = 2.0  # eight bits everywhere
    found = space.project(wide)
    assert space.within(found).all()
    assert torch.equal(found.bits[0], found.bits[1])


@pytest.mark.parametrize(
    ("budget", "prunes", "bits", "said"),
    [
        (Budget(latency=0.5), True, FLOAT, "compress.macs=0.5"),
        (Budget(macs=0.5), False, 8, "compress.bytes=0.2"),
        (Budget(macs=0.001), True, FLOAT, "compress.macs=0.001"),
    ],
)
def test_budgets_that_cannot_be_searched(
    budget: Budget, prunes: bool, bits: int, said: str
) -> None:
    costs = Costs(conv4(), IMAGES)
    with pytest.raises(UserError, match=said):
        Space(costs, budget, prunes, bits).uniform()


def test_a_network_whose_costs_are_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metakd.compression.costs._same", lambda *_: False)
    with pytest.raises(UserError, match=r"strategy=uniform"):
        Costs(conv4(), IMAGES)


def test_strategy_in_plain_values() -> None:
    costs = Costs(conv4(), IMAGES)
    kept = torch.tensor([2.0, 4.0, 3.0], dtype=torch.float64)
    found = costs.strategy(kept, [8, 8, 4, 8])
    keep = dict(zip(costs.groups, (kept / costs.channels).tolist(), strict=True))
    assert found.of("blocks.3.conv") == LayerChoice(1.0, 8)
    assert found.of("blocks.2.conv") == LayerChoice(keep["blocks.2.conv"], 4)
