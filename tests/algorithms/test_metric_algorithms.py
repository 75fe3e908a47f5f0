"""What holds for every learner that compares embeddings: right gradients, and it learns."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from metakd.adaptation.embedding_learner import EmbeddingLearner
from metakd.algorithms.matching import MatchingNet
from metakd.algorithms.metabaseline import MetaBaseline
from metakd.algorithms.protonet import ProtoNet
from metakd.algorithms.relation import Relation
from metakd.algorithms.ridge import Ridge
from metakd.data.tasks import TaskBatch
from metakd.distillation.embedding import EmbeddingMatch
from metakd.distillation.kd import KD
from metakd.distillation.objective import Objective


def related(options: dict[str, str]) -> Callable[[nn.Module], Relation]:
    return lambda net: Relation(net, width=16, **options)


def on_maps(net: nn.Module) -> Relation:
    """Convolutions over embeddings that are maps of 2x2 pixels."""
    net.map_shape = (net.embedding_size // 4, 2, 2)
    return Relation(net, width=16, module="conv")


LEARNERS: dict[str, Callable[[nn.Module], EmbeddingLearner]] = {
    "protonet": ProtoNet,
    "matching": MatchingNet,
    "metabaseline": MetaBaseline,
    "ridge": lambda net: Ridge(net, regularizer=1.0),
    "relation": related({}),
    "relation, cross-entropy": related({"loss": "cross_entropy"}),
    "relation, vote": related({"score": "vote"}),
    "relation, conv": on_maps,
}

OBJECTIVES: dict[str, tuple[Callable[[], Objective], frozenset[str]]] = {
    "labels": (Objective, frozenset({"loss/ce"})),
    "kd": (lambda: KD(kd_weight=0.7), frozenset({"loss/ce", "loss/kd"})),
    "embedding": (
        lambda: EmbeddingMatch(12, 7),
        frozenset({"loss/ce", "loss/embedding", "loss/similarity"}),
    ),
}


def noisy_tasks(seed: int, tasks: int = 8, shots: int = 2, queries: int = 5) -> TaskBatch:
    """3 classes, in each task others: points of a plane; four more dimensions are noise."""
    random = torch.Generator().manual_seed(seed)
    ways, each = 3, shots + queries
    turn = 6.3 * torch.rand(tasks, 1, generator=random) + torch.arange(ways) * 2.1
    centres = torch.stack([turn.cos(), turn.sin()], -1).unsqueeze(2)
    points = centres + 0.15 * torch.randn(tasks, ways, each, 2, generator=random)
    noise = torch.randn(tasks, ways, each, 4, generator=random)
    examples = torch.cat([noise, points], -1)
    labels = torch.arange(ways)
    return TaskBatch(
        examples[:, :, :shots].flatten(1, 2),
        labels.repeat_interleave(shots).repeat(tasks, 1),
        examples[:, :, shots:].flatten(1, 2),
        labels.repeat_interleave(queries).repeat(tasks, 1),
        ways,
        shots,
        queries,
    )


@pytest.mark.parametrize("minimised", OBJECTIVES)
@pytest.mark.parametrize("name", LEARNERS)
def test_gradient_equals_finite_differences(
    name: str, minimised: str, conv: Callable, image_tasks: Callable, answers_to: Callable
) -> None:
    """Of each parameter along a random direction, those of the objective too."""
    make, expected = OBJECTIVES[minimised]
    tasks = image_tasks()
    answers = None if minimised == "labels" else answers_to(tasks, "query")
    both = nn.ModuleList([LEARNERS[name](conv()), make()]).train()

    def loss() -> Tensor:
        terms = both[0].accumulate(tasks, both[1], answers)
        assert {term for term in terms if term.startswith("loss/")} == expected
        return terms["loss"]

    loss()
    slopes = {k: p.grad.clone() for k, p in both.named_parameters()}
    assert any(slope.abs().max() > 1e-4 for k, slope in slopes.items() if "backbone" in k)
    for parameter_name, parameter in both.named_parameters():
        start, direction = parameter.detach().clone(), torch.randn_like(parameter)
        sides = []
        for sign in (1, -1):
            parameter.data = start + sign * 1e-6 * direction
            sides.append(loss())
        parameter.data = start
        torch.testing.assert_close(
            (slopes[parameter_name] * direction).sum(),
            (sides[0] - sides[1]) / 2e-6,
            rtol=1e-5,
            atol=1e-8,
            msg=lambda text, k=parameter_name: f"{k}: {text}",
        )


@pytest.mark.parametrize("name", LEARNERS)
def test_learns_which_directions_matter(name: str, mlp: Callable) -> None:
    net = LEARNERS[name](mlp(6, 16))
    fresh, tasks = noisy_tasks(1_000_000, 50), noisy_tasks(1_000_001, 50)

    def share_right(of: TaskBatch) -> float:
        return float((net.predict(of)[0].argmax(-1) == of.query_targets).double().mean())

    before = share_right(fresh)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for step in range(100):
        optimizer.zero_grad()
        net.accumulate(noisy_tasks(step), Objective(), None)
        optimizer.step()
    assert before < 0.75
    assert share_right(tasks) > 0.93
