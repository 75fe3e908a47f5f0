import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from metakd.compression.budget import Budget
from metakd.compression.choosing import Choice, propose, search
from metakd.compression.costs import Costs
from metakd.compression.description import (
    FEATURES,
    LEVELS,
    WIDTHS,
    NetworkDescription,
    _between,
    describe_network,
)
from metakd.compression.proposer import Proposer, proposer_bytes, read_proposer
from metakd.compression.proposer_training import EvaluatedTask, train_proposer
from metakd.compression.space import Space
from metakd.compression.strategy import Strategy
from metakd.errors import UserError
from metakd.models.conv4 import Conv4

pytest.importorskip("torch_pruning")

IMAGES = torch.rand(32, 1, 16, 16, generator=torch.Generator().manual_seed(0))
Made = tuple[Space, NetworkDescription, Callable[[Strategy], float]]


def network(widths: list[int]) -> Conv4:
    torch.manual_seed(0)
    return Conv4((1, 16, 16), widths=widths).eval()


def made(widths: list[int], share: float, seed: int) -> Made:
    """A task whose accuracy falls with each group's share of lost channels, as its damage says."""
    torch.manual_seed(seed)
    costs = Costs(network(widths), IMAGES[:2])
    space = Space(costs, Budget(macs=share))
    groups, layers = len(costs.groups), len(costs.layers)
    damage = torch.rand(groups, len(LEVELS)).sort(1).values.double()
    described = NetworkDescription(
        outputs=torch.tensor([n.outputs for n in costs.layers]).double(),
        group=costs.output_of,
        inputs=costs.input_of,
        channels=costs.channels,
        damage=damage,
        magnitude=torch.rand(groups, len(LEVELS)).double(),
        rounding=torch.zeros(layers, len(WIDTHS)).double(),
        integers=torch.arange(layers),
    )

    def value(strategy: Strategy) -> float:
        lost = 1 - costs.read(strategy)[0] / costs.channels
        return 0.8 - 0.3 * float((damage[:, 0] * lost**2).sum())

    return space, described, value


@pytest.fixture(scope="module")
def learned() -> tuple[Proposer, list[Made]]:
    """A proposer that has learned from five tasks, and three others."""
    kinds = [[16, 32, 32, 8], [32, 16, 16, 8], [24, 24, 24, 8], [16, 16, 32, 8]]
    tasks = [made(kinds[i % 4], (0.2, 0.3, 0.4)[i % 3], i) for i in range(8)]
    evaluated = []
    for i, (space, task, value) in enumerate(tasks[:5]):
        _, found = space.draw(16, torch.Generator().manual_seed(i))
        uniform = space.uniform()
        start = value(space.strategy(uniform))
        values = [value(space.strategy(found, j)) - start for j in range(16)]
        evaluated.append(EvaluatedTask(task, uniform, found, torch.tensor(values)))
    return train_proposer(evaluated, steps=100), tasks[5:]


def test_a_proposal_without_evaluations_is_better_than_uniform_and_few_better_than_a_search(
    learned: tuple[Proposer, list[Made]],
) -> None:
    proposer, tasks = learned
    zero, few, searched, uniform = [], [], [], []
    for space, task, value in tasks:
        uniform.append(value(space.strategy(space.uniform())))
        zero.append(value(propose(space, task, proposer).strategy))
        few.append(value(propose(space, task, proposer, value, 4).strategy))
        searched.append(value(search(space, value, 4).strategy))
    assert np.mean(zero) > np.mean(uniform)
    assert np.mean(few) > np.mean(searched)


def test_evaluations_are_counted_and_differ(learned: tuple[Proposer, list[Made]]) -> None:
    proposer, ((space, task, value), *_) = learned
    proposed, searched = propose(space, task, proposer, value, 3), search(space, value, 3)
    for found in (proposed, searched):
        assert len(found.values) == 3
        assert found.strategies[0] == space.strategy(space.uniform())
        assert max(found.values) == value(found.strategy)
        assert len({str(s) for s in found.strategies}) == 3
    assert propose(space, task, proposer).values == ()
    with pytest.raises(UserError, match=r"compress.evaluations=1"):
        propose(space, task, proposer, value, 1)
    with pytest.raises(UserError, match=r"compress.evaluations=0"):
        search(space, value, 0)


def test_the_best_of_the_first_evaluations() -> None:
    one, two, three = (Strategy().with_keep({"a": k}) for k in (0.1, 0.2, 0.3))
    found = Choice.best_of([one, two, three], [0.5, 0.5, 0.7])
    assert found.strategy == three
    assert found.after(2) == one


def test_support_adapts_towards_the_prior() -> None:
    torch.manual_seed(0)
    proposer = Proposer(members=2)
    proposer.scale.fill_(0.1)
    with torch.no_grad():
        proposer.log_penalty.fill_(0.7)
        proposer.prior.normal_()
    support, values = torch.randn(5, FEATURES), torch.randn(5)
    found = proposer.adapted(support, values).detach().numpy()
    for member in range(2):
        prior = proposer.prior[member, :, 0].detach().double().numpy()
        rows = support.double().numpy()
        # min over w of |rows w - y|^2 + penalty |w - prior|^2, as one least-squares problem
        penalty = np.exp(0.7) ** 0.5
        system = np.vstack([rows, penalty * np.eye(FEATURES)])
        goal = np.concatenate([values.double().numpy() / 0.1, penalty * prior])
        expected = np.linalg.lstsq(system, goal, rcond=None)[0]
        np.testing.assert_allclose(found[member, :, 0], expected, rtol=1e-4)
    assert proposer.adapted(support[:0], values[:0]) is proposer.prior
    # Told the truth of many strategies, it believes them rather than the prior.
    truth = torch.randn(FEATURES, 1)
    many = torch.randn(500, FEATURES)
    goals = 0.1 * (many @ truth)[:, 0]
    predicted = proposer(many, proposer.adapted(many, goals))[0]
    assert torch.allclose(predicted, goals, atol=0.02)


def test_layers_are_a_set() -> None:
    torch.manual_seed(0)
    layers = torch.randn(3, 5, FEATURES)
    found = Proposer().embed(layers)
    assert torch.allclose(found, Proposer().embed(layers[:, torch.tensor([4, 2, 0, 1, 3])]))
    assert found.shape == (3, FEATURES)


def test_a_file_holds_a_proposer(learned: tuple[Proposer, list[Made]], tmp_path: Path) -> None:
    proposer, ((space, task, _), *_) = learned
    file = tmp_path / "proposer.safetensors"
    file.write_bytes(proposer_bytes(proposer, {"runs": 5}))
    assert propose(space, task, read_proposer(file)) == propose(space, task, proposer)
    whole = file.read_bytes()
    for content in (whole[:100], whole.replace(b'features\\":', b'features\\":1'), b"", b"{}"):
        file.write_bytes(content)
        with pytest.raises(UserError, match=r"metakd compress --learn"):
            read_proposer(file)
    save_file({"a": torch.zeros(1)}, file)
    with pytest.raises(UserError, match="no proposer"):
        read_proposer(file)
    with pytest.raises(UserError, match="no such file"):
        read_proposer(tmp_path / "other")


def test_sensitivities_show_which_channels_do_nothing() -> None:
    trained = network([8, 8, 8, 4])
    dead = [0, 2, 3, 6]
    with torch.no_grad():
        trained.blocks[1].conv.weight[dead] = 0.0
        trained.blocks[1].norm.bias[dead] = -1.0
    costs = Costs(trained, IMAGES[:2])
    found = describe_network(trained, costs, [IMAGES])
    group = costs.groups.index("blocks.1.conv")
    assert found.damage[group, 0] == pytest.approx(0.0, abs=1e-6)
    assert found.magnitude[group, 0] == 0.0
    assert found.damage[group, 1] > 0.01
    assert (found.damage[[g for g in range(3) if g != group], 0] > 0.01).all()
    weight = trained.blocks[3].conv.weight.detach().flatten(1).double().numpy()
    step = np.abs(weight).max(1, keepdims=True) / 7  # four bits
    error = np.linalg.norm(np.round(weight / step) * step - weight) / np.linalg.norm(weight)
    assert found.rounding[3, WIDTHS.index(4)] == pytest.approx(error, rel=1e-4)
    again = NetworkDescription.from_plain(found.plain())
    for field in dataclasses.fields(found):
        assert torch.equal(getattr(again, field.name), getattr(found, field.name))


def test_curves_are_read_straight_between_the_levels() -> None:
    curve = torch.tensor([[0.4, 1.0]], dtype=torch.float64)  # at 0.5 and 0.2
    keep = torch.tensor([[1.0], [0.75], [0.5], [0.35], [0.2], [0.1]], dtype=torch.float64)
    assert _between(keep, curve)[:, 0].tolist() == pytest.approx([0, 0.2, 0.4, 0.7, 1.0, 1.0])
