"""Inner steps that are computed again give the gradients, to the last bit, of those kept."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from metakd.adaptation.checkpointing import recomputed
from metakd.adaptation.inner_loop import tasks_of
from metakd.adaptation.solver import GradientSolver
from metakd.algorithms.maml import MAML
from metakd.data.tasks import TaskBatch
from metakd.distillation.embedding import EmbeddingMatch
from metakd.distillation.objective import Objective
from metakd.errors import UserError
from metakd.registry import build
from metakd.stages.graph_memory import peak_of_graph

pytestmark = pytest.mark.usefixtures("two_workers")


def learner(backbone: nn.Module, outputs: int = 3, **settings: Any) -> MAML:
    torch.manual_seed(3)
    return build(
        MAML,
        copy.deepcopy(backbone),
        outputs,
        options={"inner_lr": 0.3, "inner_steps": 5, **settings},
    )


@pytest.mark.parametrize("checkpoint", [True, 2, 7])
@pytest.mark.parametrize("execution", ["loop", "threads"])
@pytest.mark.parametrize("batchnorm", ["transductive", "inductive"])
def test_gradients_are_the_same(
    checkpoint: int | bool,
    execution: str,
    batchnorm: str,
    conv: Callable,
    image_tasks: Callable,
    answers_to: Callable,
    gradient_of: Callable,
) -> None:
    """Also those of a projection that is learned in the inner and the outer loss."""
    tasks, backbone = image_tasks(), conv()
    answers = answers_to(tasks, "both")
    objective = EmbeddingMatch(12, 7, torch.randn(7), kd_weight=0.5)
    found = []
    for steps in (0, checkpoint):
        maml = learner(backbone, execution=execution, batchnorm=batchnorm, checkpoint_steps=steps)
        both = nn.ModuleList([maml, copy.deepcopy(objective)])
        before = copy.deepcopy(both.state_dict())
        terms = maml.accumulate(tasks, both[1], answers)
        found.append({**gradient_of(both), **terms})
        for name, value in both.state_dict().items():
            assert torch.equal(value, before[name]), name
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-12, atol=1e-14, msg=name)


def test_auto_execution_does_not_batch(mlp: Callable, gradient_of: Callable) -> None:
    """A network without convolutions is batched on a CPU, unless steps are computed again."""
    x, y = torch.randn(4, 3, 5, 1), torch.randn(4, 3, 5, 1)
    tasks, backbone, found = TaskBatch(x[0], y[0], x[1], y[1], 1, 5, 5), mlp(), []
    for steps, how in ((0, "batched"), (1, "loop")):
        maml = learner(backbone, outputs=1, checkpoint_steps=steps)
        assert maml.execution_for(3, torch.device("cpu")) == how
        maml.accumulate(tasks, Objective(), None)
        found.append(gradient_of(maml))
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value)


def test_dropout_drops_the_same(
    conv: Callable, image_tasks: Callable, gradient_of: Callable
) -> None:
    backbone = nn.Sequential(conv(), nn.Dropout(0.5))
    backbone.embedding_size = 12
    tasks, found = image_tasks(), []
    for steps in (0, 1):
        maml = learner(backbone, execution="loop", checkpoint_steps=steps, inner_steps=2).train()
        torch.manual_seed(11)
        maml.accumulate(tasks, Objective(), None)
        found.append(gradient_of(maml))
        following = torch.rand(())
        found[-1]["the generator goes on from the same place"] = following
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, msg=name)


def test_saves_memory(conv: Callable, image_tasks: Callable) -> None:
    """Kept whole, the graph grows with the steps; recomputed, by the parameters alone."""
    tasks, backbone = image_tasks(tasks=1, shots=5), conv()
    peak = {}
    for checkpoint in (0, 1, 4):
        for steps in (4, 8):
            maml = learner(
                backbone, execution="loop", checkpoint_steps=checkpoint, inner_steps=steps
            )
            known = [*maml.parameters(), tasks.support, tasks.query]
            with peak_of_graph(known) as peak[checkpoint, steps]:
                maml.accumulate(tasks, Objective(), None)
    grown = {c: peak[c, 8].bytes - peak[c, 4].bytes for c in (0, 1, 4)}
    parameters = 8 * sum(p.numel() for p in maml.parameters())
    assert grown[1] <= 4.5 * parameters
    assert grown[1] < 0.2 * grown[0]
    assert peak[1, 8].bytes < peak[4, 8].bytes < peak[0, 8].bytes


def test_second_derivatives(conv: Callable, image_tasks: Callable) -> None:
    """A gradient through the adaptation that is differentiated again (method.md, `feedback`)."""
    tasks, found = image_tasks(tasks=1), []
    for steps in (0, 2):
        torch.manual_seed(0)
        maml = learner(conv(batchnorm=False), checkpoint_steps=steps, inner_steps=3)
        loop = maml.inner_loop(Objective(), "transductive", False)
        solver = GradientSolver(loop, 3)
        values = {n: v.detach().requires_grad_() for n, v in solver.values().items()}
        loss = solver.solve(values, tasks_of(tasks, None), 3).logits.square().mean()
        once = torch.autograd.grad(loss, list(values.values()), create_graph=True)
        again = sum(g.square().sum() for g in once)
        twice = torch.autograd.grad(again, list(values.values()))
        found.append([*once, *twice])
    for kept, recomputed_one in zip(*found, strict=True):
        torch.testing.assert_close(recomputed_one, kept, rtol=1e-10, atol=1e-12)


def test_a_block_of_any_shape() -> None:
    """Nested inputs with constants, an output that is an input, one that is an integer."""
    runs = []

    def block(inputs: Any, graph: bool) -> tuple[Any, str]:
        runs.append(graph)
        (x, factor), y = inputs["a"], inputs["b"]
        return {"z": factor * x * y, "same": y, "count": torch.tensor(4), "word": "w"}, "aux"

    x, y = torch.randn(3, requires_grad=True), torch.randn(3, requires_grad=True)
    outputs, aux = recomputed(block, {"a": (x, 2.0), "b": y})
    assert (outputs["word"], aux, int(outputs["count"])) == ("w", "aux", 4)
    assert not outputs["count"].requires_grad
    assert runs == [False]
    dx, dy = torch.autograd.grad((outputs["z"] + outputs["same"]).sum(), (x, y))
    assert runs == [False, True]
    torch.testing.assert_close(dx, 2 * y)
    torch.testing.assert_close(dy, 2 * x + 1)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"checkpoint_steps": -1}, "type 0 to keep everything"),
        ({"checkpoint_steps": 1, "execution": "batched"}, "execution=loop"),
    ],
)
def test_refuses(settings: dict, words: str, conv: Callable) -> None:
    with pytest.raises(UserError, match=words):
        learner(conv(), **settings)
