"""The logistic regression of `algorithm=supervised algorithm.head=linear` as a step that repeats.

`metakd.exporting.graphs.metric` writes its steps one after the other; a runtime that has loops
takes these parts instead.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metakd.adaptation.judged import Judged
from metakd.adaptation.logistic_regression import ITERATIONS, Fit, first_fit, next_fit, step_size
from metakd.adaptation.task_classifiers import members
from metakd.algorithms.supervised import Supervised
from metakd.exporting.graphs.graph import Free, Graph
from metakd.exporting.graphs.metric import Metric, MetricHead
from metakd.exporting.graphs.repeated import Repeated

__all__ = ["repeated_fit"]

_FREE: tuple[dict[int, str], ...] = (
    {1: "examples"},
    {1: "examples", 2: "examples"},
    {},
    {1: "examples", 2: "ways"},
    {2: "ways"},
    {1: "examples", 2: "ways"},
    {2: "ways"},
    {},
)
"""Dimensions of what is carried that may have any size: embeddings, their products, the size of a
step, and a `Fit`."""


def repeated_fit(graph: Graph) -> Repeated | None:
    """Return the parts of a graph that fits a logistic regression; None: it does not.

    Args:
        graph: of a whole student, or of its head.
    """
    embedded = _Embedded(graph.module)
    penalty = embedded.penalty()
    if penalty is None:
        return None
    first, labels, _ = graph.inputs
    start = _Start(embedded, penalty).eval()
    with torch.no_grad():
        before = start(graph.inputs[first], graph.inputs[labels])
    carried = {f"carried_{i}": leaf for i, leaf in enumerate(before)}
    free: Free = {**graph.free, **dict(zip(carried, _FREE, strict=True))}
    shown = {name: graph.inputs[name] for name in (first, labels)}

    def part(module: nn.Module, inputs: Mapping[str, Tensor]) -> Graph:
        return Graph(module.eval(), inputs, {n: free.get(n, {}) for n in inputs}, graph.limits)

    return Repeated(
        count=ITERATIONS,
        carried=carried,
        start=part(start, shown),
        order=None,
        step=part(_Step(penalty), {**shown, **carried}),
        finish=part(_Finish(embedded), {**graph.inputs, **carried}),
    )


class _Embedded(nn.Module):
    """What a student's regression is fitted to.

    Args:
        module: of the graph: a `Metric`, or a `MetricHead` alone.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.whole = module if isinstance(module, Metric) else None
        head = module.head if isinstance(module, Metric) else module
        learner = head.learner if isinstance(head, MetricHead) else None
        self.sphere = learner.sphere if isinstance(learner, Judged) else None
        self.learner = learner.learner if isinstance(learner, Judged) else learner

    def penalty(self) -> float | None:
        """Return that of the regression; None: the student fits none."""
        learner = self.learner
        if not isinstance(learner, Supervised) or learner.head != "linear":
            return None
        return learner.penalty

    def forward(self, support: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
        """Return embeddings [1, n, size] and [1, q, size] of length 1."""
        shown, asked = support, query
        if self.whole is not None:
            shown, asked = self.whole.embed(support, query)
        if self.sphere is not None:
            shown, asked = self.sphere(shown), self.sphere(asked)
        return F.normalize(shown, dim=-1)[None], F.normalize(asked, dim=-1)[None]


class _Start(nn.Module):
    def __init__(self, embedded: _Embedded, penalty: float) -> None:
        super().__init__()
        self.embedded, self.penalty = embedded, penalty

    def forward(self, support: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        x, _ = self.embedded(support, support)
        gram = x @ x.transpose(1, 2)
        return x, gram, step_size(gram, self.penalty), *first_fit(_goal(labels))


class _Step(nn.Module):
    def __init__(self, penalty: float) -> None:
        super().__init__()
        self.penalty = penalty

    def forward(  # without *carried, of which torch.export does not take the sizes
        self,
        support: Tensor,
        labels: Tensor,
        x: Tensor,
        gram: Tensor,
        size: Tensor,
        weight: Tensor,
        bias: Tensor,
        ahead: Tensor,
        ahead_bias: Tensor,
        pace: Tensor,
    ) -> tuple[Tensor, ...]:
        fit = Fit(weight, bias, ahead, ahead_bias, pace)
        moved = next_fit(fit, gram, _goal(labels), size, self.penalty)
        return x.clone(), gram.clone(), size.clone(), *moved


class _Finish(nn.Module):
    def __init__(self, embedded: _Embedded) -> None:
        super().__init__()
        self.embedded = embedded

    def forward(
        self,
        support: Tensor,
        labels: Tensor,
        query: Tensor,
        x: Tensor,
        gram: Tensor,
        size: Tensor,
        weight: Tensor,
        bias: Tensor,
        ahead: Tensor,
        ahead_bias: Tensor,
        pace: Tensor,
    ) -> Tensor:
        _, asked = self.embedded(support, query)
        found: Tensor = asked @ (x.transpose(1, 2) @ weight) + bias
        return found[0]


def _goal(labels: Tensor) -> Tensor:
    """Return one-hot labels [1, n, ways]."""
    return members(labels.argmax(1), labels.shape[1], labels)[None]
