"""Any inner loop as a graph: its steps one after the other, gradients as plain operations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

from metakd.adaptation.differentiation import Tensors, detached
from metakd.adaptation.gradient_learner import GradientLearner
from metakd.adaptation.inner_loop import Examples, InnerLoop, StartOf, Task
from metakd.adaptation.task_classifiers import members
from metakd.distillation.objective import Objective
from metakd.exporting.graphs.backward_rules import rules
from metakd.exporting.graphs.graph import AdaptingGraph, Graph

__all__ = ["TracedGraph", "Unrolled", "UnrolledGraph"]

_NEVER = -1e4
"""A logit whose exponential is 0 beside any other's."""


class Unrolled(nn.Module):
    """A learner that adapts by gradient steps, to one task.

    Args:
        learner: the learner; its inner loop is used as it is.
        steps: of adaptation.
        classes: the labels are classes, not numbers.
    """

    def __init__(self, learner: GradientLearner, steps: int, *, classes: bool) -> None:
        super().__init__()
        loop = learner.inner_loop(Objective(), "inductive", first_order=True)
        start = None if loop.start_of is None else partial(_start, loop.start_of)
        self.loop = replace(loop.replica(), dtype=None, start_of=start)
        self.network, self.rule = self.loop.network, self.loop.rule
        self.order_at_use = learner.order_at_use
        self.steps, self.classes = steps, classes

    def forward(self, support: Tensor, labels: Tensor, query: Tensor) -> Tensor:
        """Return logits [q, ways], or outputs [q, outputs]; see `AdaptingGraph`."""
        loop, values = self.loop, detached(self.loop.values())
        order = self.order_at_use(support.shape[0], self.steps, support.device)
        task = loop.prepare(values, self.task(support, labels, query)._replace(order=order))
        for moment in loop.adapt(values, task, self.steps):
            values = moment.values
        return self.answered(values, task)

    def task(self, support: Tensor, labels: Tensor, query: Tensor) -> Task:
        """Return a task of the graph's inputs, of which every step sees all examples."""
        targets, ways = (labels.argmax(1), labels.shape[1]) if self.classes else (labels, 1)
        return Task(Examples(support, targets), Examples(query, targets), None, ways)

    def answered(self, values: Tensors, task: Task) -> Tensor:
        """Return logits [q, ways], or outputs [q, outputs], of values that have adapted."""
        logits: Tensor = self.loop.predict_query(values, task).logits
        return logits[:, : task.ways] if self.classes else logits


def _start(start_of: StartOf, loop: InnerLoop, values: Tensors, task: Task) -> Tensors:
    """Return where a task starts whose labels may have columns without an example.

    Logits of such a class are so small that the other classes' are as if it were not there.
    """
    values = start_of(loop, values, task)
    shown = members(task.support.targets, task.ways, task.support.inputs).sum(0) > 0
    weight, bias = values["network.head.weight"], values["network.head.bias"]
    weight = torch.where(shown[:, None], weight, torch.zeros_like(weight))
    bias = torch.where(shown, bias, torch.full_like(bias, _NEVER))
    return {**values, "network.head.weight": weight, "network.head.bias": bias}


@dataclass(frozen=True)
class TracedGraph(Graph):
    """A graph whose module takes gradients, which `torch.export` refuses.

    So the module is traced first: to the operations that autograd calls. The backward passes among
    them become others that runtimes know.
    """

    @torch.no_grad()
    def program(self, most: Mapping[str, int] | None = None) -> torch.export.ExportedProgram:
        """See `Graph.program`."""
        traced = make_fx(self.module, rules(), _allow_non_fake_inputs=True)(*self._symbols())
        _without_copies(traced)
        return torch.export.export(
            traced, self.example_inputs(), dynamic_shapes=self.shapes(most or {}), strict=False
        )

    def _symbols(self) -> list[Tensor]:
        """Return the inputs without values, free sizes as symbols and the others as they are."""
        mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
        found: list[Tensor] = []
        for name, given in self.inputs.items():
            free = self.free.get(name, {})
            kinds = [
                DimDynamic.DYNAMIC if i in free else DimDynamic.STATIC for i in range(given.dim())
            ]
            context: Any = StatelessSymbolicContext(dynamic_sizes=kinds)
            found.append(mode.from_tensor(given, symbolic_context=context))
        return found


def _without_copies(traced: GraphModule) -> None:
    """Take out what only autograd needs: names for the same tensor."""
    for node in traced.graph.nodes:
        if node.target in (torch.ops.aten.alias.default, torch.ops.aten.detach.default):
            node.replace_all_uses_with(node.args[0])
    traced.graph.eliminate_dead_code()
    traced.recompile()


@dataclass(frozen=True)
class UnrolledGraph(TracedGraph, AdaptingGraph):
    """The graph of an `Unrolled`."""
