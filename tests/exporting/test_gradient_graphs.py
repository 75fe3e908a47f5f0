"""Graphs of learners that adapt by gradient steps compute what the learners themselves do."""

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
from metakd.exporting.graphs.head_steps import HeadSteps
from metakd.exporting.graphs.unrolled import UnrolledGraph
from metakd.using.learner import Trained
from metakd.using.recipe import Part

LEARNERS: dict[str, tuple[str, dict[str, Any]]] = {
    "anil": ("anil.ANIL", {}),
    "anil_rates": ("anil.ANIL", {"learn_rates": "per_layer_per_step"}),
    "maml": ("maml.MAML", {"inner_lr": 0.1}),
    "maml_rates": ("maml.MAML", {"learn_rates": "per_layer_per_step"}),
    "boil": ("boil.BOIL", {}),
    "meta_sgd": ("meta_sgd.MetaSGD", {}),
    "meta_curvature": ("meta_curvature.MetaCurvature", {}),
    "protomaml": ("protomaml.ProtoMAML", {}),
    "imaml": ("imaml.IMAML", {"inner_lr": 0.1}),
    "lstm": ("lstm.LSTMMetaLearner", {}),
    "reptile": ("reptile.Reptile", {"inner_batch": 4}),
    "reptile_all": ("reptile.Reptile", {"inner_optimizer": "sgd", "inner_batch": None}),
    "reptile_carried": ("reptile.Reptile", {"inner_state": "carried", "inner_lr": 0.1}),
    "adversarial": ("adversarial.Adversarial", {"base": "maml"}),
    "bfloat16": ("maml.MAML", {"inner_precision": "bfloat16"}),
}


def given(ways: int, examples: int, queries: int, shape: tuple[int, ...] = (1, 16, 16)) -> Any:
    generator = torch.Generator().manual_seed(examples)
    labels = torch.eye(ways)[torch.arange(examples) % ways]
    return (
        torch.randn(examples, *shape, generator=generator),
        labels,
        torch.randn(queries, *shape, generator=generator),
    )


def own_outputs(trained: Trained, steps: int, task: tuple[Tensor, ...], targets: Any) -> Tensor:
    """Return what the learner itself says of a task, computed in float64."""
    support, labels, query = task
    batch = TaskBatch(
        support=support[None].double(),
        support_targets=targets[None],
        query=query[None].double(),
        query_targets=torch.zeros(1, len(query), dtype=torch.int64),
        ways=labels.shape[1],
        shots=1,
        queries=len(query),
    )
    learner = copy.deepcopy(trained.algorithm)
    for module in learner.modules():
        if hasattr(module, "dtype"):
            module.dtype = None
    found = learner.double().predict(batch, (steps,), "inductive")
    return found[0, 0, :, : labels.shape[1]].float()


@pytest.mark.parametrize("name", LEARNERS)
def test_same_logits(name: str, made_up_trained: Callable[..., Trained]) -> None:
    algorithm, options = LEARNERS[name]
    trained = made_up_trained(algorithm, steps=2, statistics=False, **options)
    graph = adapting_graph(trained)
    examples = graph.fixed_examples or 7
    assert (graph.fixed_examples == 6) == (name in ("reptile", "reptile_carried"))
    closed = isinstance(graph.module, HeadSteps)
    assert closed == name.startswith("anil")
    assert graph.fixed_ways == (None if closed else 3)
    for ways, queries in ((3, 4), (2, 1)) if closed else ((3, 4), (3, 1)):
        task = given(ways, examples, queries)
        wanted = own_outputs(trained, 2, task, task[1].argmax(1))
        with torch.no_grad():
            found = graph.module(*task)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
        with torch.no_grad():
            other = adapting_graph(trained, steps=0).module(*task)
        assert not torch.allclose(other, wanted, rtol=1e-3)  # the steps matter


@pytest.mark.parametrize("algorithm", ["anil.ANIL", "maml.MAML"])
def test_regression(algorithm: str, made_up_trained: Callable[..., Trained]) -> None:
    trained = made_up_trained(
        algorithm,
        shape=(2,),
        backbone=Part("metakd.models.mlp.MLP", options={"widths": [5, 4]}),
        outputs=2,
        steps=2,
        kind="regression",
    )
    graph = adapting_graph(trained)
    assert list(graph.inputs) == ["support", "targets", "query"]
    support, _, query = given(2, 5, 3, (2,))
    task = (support, given(2, 5, 3, (2,))[0].flip(0), query)
    wanted = own_outputs(trained, 2, task, task[1].double())
    with torch.no_grad():
        found = graph.module(*task)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_the_traced_program_adapts(made_up_trained: Callable[..., Trained]) -> None:
    trained = made_up_trained("maml.MAML", steps=1, statistics=False, inner_lr=0.1)
    graph = adapting_graph(trained)
    assert isinstance(graph, UnrolledGraph)
    program = graph.program()
    names = {str(node.target) for node in program.graph.nodes}
    assert not [name for name in names if "backward" in name]
    for examples, queries in ((6, 1), (9, 5)):  # other sizes than it was traced with
        task = given(3, examples, queries)
        wanted = own_outputs(trained, 1, task, task[1].argmax(1))
        found = program.module()(*task)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_more_classes_than_outputs_are_refused(made_up_trained: Callable[..., Trained]) -> None:
    for algorithm in ("anil.ANIL", "maml.MAML"):
        trained = made_up_trained(algorithm, steps=1)
        with pytest.raises(UserError, match=r"ways=4: .*3 classes apart"):
            adapting_graph(trained, ways=4)
    assert adapting_graph(trained, ways=2).fixed_ways == 2
    assert adapting_graph(made_up_trained("protomaml.ProtoMAML", steps=1), ways=4).fixed_ways == 4
    with pytest.raises(UserError, match="steps=-1"):
        adapting_graph(trained, steps=-1)
