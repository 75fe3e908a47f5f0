"""An inner loop in parts: where it starts, one step, what it ends in. A runtime repeats the step.

So a graph is as large, and as fast to write, with fifty steps as with one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from metakd.adaptation.differentiation import detached
from metakd.adaptation.inner_loop import Examples, Moment, Task
from metakd.exporting.graphs.graph import Free, Graph
from metakd.exporting.graphs.unrolled import TracedGraph, Unrolled, UnrolledGraph

__all__ = ["Repeated", "repeated"]

_Leaves = tuple[Tensor, ...]


@dataclass(frozen=True)
class Repeated:
    """The parts of a learner's graph. What is carried from step to step are tensors.

    Attributes:
        count: steps, at least 1.
        carried: what is carried before the first step, where that is the same for every task.
        start: (support, labels) to what is carried, where it depends on the task; else None.
        order: int64 [count, n], which examples each step sees; None: all.
        step: (support, labels, *carried), with an `order` (support, labels, its row [n],
            *carried), to what is carried next.
        finish: (support, labels, query, *carried) to logits.

    Of what is carried as many sizes are free as the step's graph says. For a student's head
    support and query are features.
    """

    count: int
    carried: Mapping[str, Tensor]
    start: Graph | None
    order: Tensor | None
    step: Graph
    finish: Graph


def repeated(graph: UnrolledGraph) -> Repeated | None:
    """Return the parts of a graph; None where its steps are not all alike, or there is none."""
    whole = graph.module
    assert isinstance(whole, Unrolled)
    loop, count = whole.loop, whole.steps
    if not count or loop.rule.counts or loop.embeds_once or (loop.start_of and loop.proximal):
        return None
    support, labels, _ = graph.example_inputs()
    order = whole.order_at_use(support.shape[0], count, support.device)
    parts = _Parts(whole, support, labels)
    names = list(graph.inputs)

    def part(module: nn.Module, inputs: Mapping[str, Tensor]) -> TracedGraph:
        free: Free = {name: graph.free.get(name, {}) for name in inputs}
        return TracedGraph(module.eval(), inputs, free, graph.limits)

    carried = {f"carried_{i}": leaf for i, leaf in enumerate(parts.before)}
    shown = {name: graph.inputs[name] for name in names[:2]}
    row = {} if order is None else {"chosen": order[0]}
    begins = None if loop.start_of is None else part(_Start(parts), shown)
    return Repeated(
        count=count,
        carried=carried,
        start=begins,
        order=order,
        step=part(_Step(parts, chooses=order is not None), {**shown, **row, **carried}),
        finish=part(_Finish(parts), {**graph.inputs, **carried}),
    )


class _Parts:
    """A loop's values and the state of its rule as a row of tensors, and back.

    Args:
        whole: the learner.
        support: of a task.
        labels: of a task.
    """

    def __init__(self, whole: Unrolled, support: Tensor, labels: Tensor) -> None:
        self.whole, self.loop = whole, whole.loop
        self.fixed = detached(whole.loop.values())
        moment = self.first(support, labels)
        adapted = {n: v for n, v in moment.values.items() if n.startswith(self.loop.adapts)}
        self.names = list(adapted)
        self.pattern, self.form = pytree.tree_flatten((adapted, moment.state))
        self.before = tuple(leaf.detach().clone() for leaf in self.leaves(moment))

    def first(self, support: Tensor, labels: Tensor) -> Moment:
        """Return where adaptation stands before the first step."""
        task = self.whole.task(support, labels, support)
        return next(iter(self.loop.adapt(self.fixed, task, 0)))

    def leaves(self, moment: Moment) -> _Leaves:
        """Return what is carried on."""
        adapted = {name: moment.values[name] for name in self.names}
        leaves = pytree.tree_leaves((adapted, moment.state))  # None is a leaf
        return tuple(leaf for leaf in leaves if isinstance(leaf, Tensor))

    def moment(self, leaves: _Leaves) -> Moment:
        """Return where adaptation stands."""
        rest = iter(leaves)
        found = [next(rest) if isinstance(leaf, Tensor) else leaf for leaf in self.pattern]
        adapted, state = pytree.tree_unflatten(found, self.form)
        return Moment({**self.fixed, **adapted}, state, {})


class _Part(nn.Module):
    def __init__(self, parts: _Parts) -> None:
        super().__init__()
        self.parts = parts
        self.network, self.rule = parts.loop.network, parts.loop.rule


class _Start(_Part):
    def forward(self, support: Tensor, labels: Tensor) -> _Leaves:
        return self.parts.leaves(self.parts.first(support, labels))


class _Step(_Part):
    def __init__(self, parts: _Parts, *, chooses: bool) -> None:
        super().__init__(parts)
        self.chooses = chooses

    def forward(self, support: Tensor, labels: Tensor, *given: Tensor) -> _Leaves:
        parts = self.parts
        task: Task = parts.whole.task(support, labels, support)
        if self.chooses:
            seen: Examples = task.support.chosen(given[0])
            task, given = task._replace(support=seen), given[1:]
        start: dict[str, Any] = {name: parts.fixed.get(name) for name in parts.names}
        return parts.leaves(parts.loop.step(parts.moment(given), start, task, 0, graph=False))


class _Finish(_Part):
    def forward(self, support: Tensor, labels: Tensor, query: Tensor, *carried: Tensor) -> Tensor:
        task = self.parts.whole.task(support, labels, query)
        return self.parts.whole.answered(self.parts.moment(carried).values, task)
