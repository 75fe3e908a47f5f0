"""What holds for every learner that compares embeddings: it learns which directions matter."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from metakd.algorithms.embedding_learner import EmbeddingLearner
from metakd.algorithms.metabaseline import MetaBaseline
from metakd.algorithms.protonet import ProtoNet
from metakd.algorithms.relation import Relation
from metakd.algorithms.ridge import Ridge
from metakd.data.tasks import TaskBatch
from metakd.distillation.objective import Objective

LEARNERS: dict[str, Callable[[nn.Module], EmbeddingLearner]] = {
    "protonet": ProtoNet,
    "metabaseline": MetaBaseline,
    "ridge": lambda net: Ridge(net, regularizer=1.0),
    "relation": Relation,
    "relation, cross-entropy": lambda net: Relation(net, loss="cross_entropy"),
    "relation, vote": lambda net: Relation(net, score="vote"),
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
