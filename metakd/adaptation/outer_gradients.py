"""What one task contributes to the outer gradient; pure functions of (loop, values, task)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from metakd.adaptation.differentiation import Tensors, detached
from metakd.adaptation.inner_loop import InnerLoop, Task

__all__ = ["Contribution", "OuterGradient", "displacement", "unrolled"]


class Contribution(NamedTuple):
    """Of one task; the outer gradient is the mean over tasks.

    Attributes:
        gradients: of every value before adaptation, by name.
        terms: detached scalars to report.
        state: the update rule's last state, where it carries one from task to task; else empty.
    """

    gradients: Tensors
    terms: dict[str, Tensor]
    state: Any = ()


class OuterGradient(Protocol):
    """How the gradient with respect to the values before adaptation is taken."""

    def __call__(self, loop: InnerLoop, values: Tensors, task: Task, steps: int) -> Contribution:
        """Adapt to `task` with `steps` steps and return its contribution."""
        ...


def unrolled(
    loop: InnerLoop,
    values: Tensors,
    task: Task,
    steps: int,
    weights: Sequence[float] | None = None,
) -> Contribution:
    """Differentiate the query loss through the inner loop (MAML, method.md section 5).

    With `loop.first_order` the inner gradients are constants (FOMAML). With `weights`, the query
    losses after every inner step (MAML++, Antoniou et al. 2019); see `InnerLoop.query_terms`.
    """

    def query_loss(at: Tensors) -> tuple[Tensor, dict[str, Tensor]]:
        terms = loop.query_terms(at, task, steps, weights)
        return terms["loss"], detached(terms)

    gradients, _, terms = loop.differentiate(query_loss, values, create_graph=False)
    return Contribution(gradients, terms)


def displacement(loop: InnerLoop, values: Tensors, task: Task, steps: int) -> Contribution:
    """Return φ_0 - φ_i, so that descent with rate η is Reptile's φ_0 ← φ_0 + η mean(φ_i - φ_0).

    Needs no query set: the terms are those of the last inner step, on the support set.
    """
    values = detached(values)
    for moment in loop.adapt(values, task, steps):
        last = moment
    gradients = {name: value - last.values[name] for name, value in values.items()}
    return Contribution(gradients, last.terms, last.state if loop.rule.carries else ())
