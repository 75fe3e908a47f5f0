"""Graphs of learners that compare embeddings compute what the learners themselves do."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from metakd.data.tasks import TaskBatch
from metakd.errors import UserError
from metakd.exporting.graphs.adapting import adapting_graph
from metakd.exporting.graphs.ridge import inverse
from metakd.using.learner import Trained

METRIC: dict[str, tuple[str, dict[str, Any]]] = {
    "protonet": ("protonet.ProtoNet", {}),
    "cosine": ("protonet.ProtoNet", {"distance": "cosine"}),
    "root": ("protonet.ProtoNet", {"distance": "euclidean_root"}),
    "matching": ("matching.MatchingNet", {}),
    "metabaseline": ("metabaseline.MetaBaseline", {}),
    "relation": ("relation.Relation", {}),
    "vote": ("relation.Relation", {"score": "vote"}),
    "ridge": ("ridge.Ridge", {"regularizer": 0.5}),
    "supervised": ("supervised.Supervised", {"outputs": 8}),
    "linear": ("supervised.Supervised", {"outputs": 8, "head": "linear"}),
    "centred": ("protonet.ProtoNet", {"centred": True}),
    "without_statistics": ("protonet.ProtoNet", {"statistics": False}),
}


def task(shape: tuple[int, ...], ways: int, examples: int, queries: int) -> tuple[Tensor, ...]:
    """Return support, one-hot labels and queries; the last class has the fewest examples."""
    generator = torch.Generator().manual_seed(examples)
    labels = torch.eye(ways)[torch.arange(examples) % ways]
    support, query = (torch.randn(n, *shape, generator=generator) for n in (examples, queries))
    return support, labels, query


def own_logits(trained: Trained, support: Tensor, labels: Tensor, query: Tensor) -> Tensor:
    """Return what the learner itself says of a task, computed in float64."""
    batch = TaskBatch(
        support=support[None].double(),
        support_targets=labels.argmax(1)[None],
        query=query[None].double(),
        query_targets=torch.zeros(1, len(query), dtype=torch.int64),
        ways=labels.shape[1],
        shots=1,
        queries=len(query),
    )
    found = copy.deepcopy(trained.algorithm).double().predict(batch, (0,), "inductive")
    return found[0, 0].float()


@pytest.mark.parametrize("name", METRIC)
def test_same_logits(name: str, made_up_trained: Callable[..., Trained]) -> None:
    algorithm, options = METRIC[name]
    trained = made_up_trained(algorithm, **options)
    graph = adapting_graph(trained)
    for ways, examples, queries in ((3, 7, 4), (5, 5, 1)):
        given = task((1, 16, 16), ways, examples, queries)
        wanted = own_logits(trained, *given)
        with torch.no_grad():
            torch.testing.assert_close(graph.module(*given), wanted, rtol=1e-4, atol=1e-4)
            if name == "without_statistics":
                assert graph.embedding is None
                continue
            assert graph.embedding is not None
            assert graph.head is not None
            shown, asked = graph.embedding.module(given[0]), graph.embedding.module(given[2])
            apart = graph.head.module(shown, given[1], asked)
        torch.testing.assert_close(apart, wanted, rtol=1e-4, atol=1e-4)
    assert graph.fixed_ways is None


def test_inverse() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 3, dtype=torch.float64, generator=generator)
    matrix = x @ x.T + 1e-3 * torch.eye(6, dtype=torch.float64)  # eigenvalues about 10⁴ apart
    found = inverse(matrix, torch.tensor(1e-3, dtype=torch.float64))
    torch.testing.assert_close(found, torch.linalg.inv(matrix), rtol=1e-9, atol=1e-9)


def test_the_learner_stays_as_it_is(made_up_trained: Callable[..., Trained]) -> None:
    trained = made_up_trained("protonet.ProtoNet")
    graph = adapting_graph(trained)
    for parameter in graph.module.parameters():
        parameter.data.zero_()
    assert all(bool(p.any()) for p in trained.algorithm.parameters())
    assert all(p.requires_grad for p in trained.algorithm.parameters())


def test_a_start_for_each_task_is_refused(made_up_trained: Callable[..., Trained]) -> None:
    from metakd.algorithms.adversarial import Adversarial

    options = {"base": "protonet", "start": "best", "noises": 2}
    trained = made_up_trained("adversarial.Adversarial", **options)
    assert isinstance(trained.algorithm, Adversarial)
    with pytest.raises(UserError, match="start=best"):
        adapting_graph(trained)
    trained.algorithm.offsets.zero_()
    given = task((1, 16, 16), 3, 7, 4)
    with torch.no_grad():
        found = adapting_graph(trained).module(*given)
    torch.testing.assert_close(found, own_logits(trained, *given), rtol=1e-4, atol=1e-4)
