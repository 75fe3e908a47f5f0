"""Learners that adapt by gradient steps, as graphs."""

from __future__ import annotations

from metakd.adaptation.gradient_learner import GradientLearner
from metakd.errors import UserError
from metakd.exporting.graphs.graph import AdaptingGraph
from metakd.exporting.graphs.head_steps import HeadSteps
from metakd.exporting.graphs.unrolled import Unrolled, UnrolledGraph

__all__ = ["gradient_graph"]


def gradient_graph(learner: GradientLearner, graph: AdaptingGraph, steps: int) -> AdaptingGraph:
    """Return the graph of a learner that adapts by gradient steps.

    Args:
        learner: a copy that may be used up.
        graph: with the inputs; its module is not read.
        steps: of adaptation, 0 or more.

    Raises:
        UserError: more classes than the head has outputs, or fewer than 0 steps.
    """
    if steps < 0:
        raise UserError(f"steps={steps}: give 0 or more")
    classes = "labels" in graph.inputs
    ways = graph.inputs["labels"].shape[1] if classes else None
    outputs = learner.network.head.out_features
    if ways is not None and learner.start_of is None and ways > outputs:
        raise UserError(
            f"ways={ways}: the head of this student tells {outputs} classes apart; give {outputs} "
            f"or fewer, or train with task.ways={ways}"
        )
    limits = dict(graph.limits)
    free = {name: dict(dims) for name, dims in graph.free.items()}
    of_head = learner.adapted == "head" and learner.start_of is None and not learner.proximal
    if of_head and classes:
        free["labels"][1], limits["ways"], ways = "ways", outputs, None
    given = {**vars(graph), "free": free, "limits": limits, "fixed_ways": ways, "steps": steps}
    if of_head:
        given["module"] = HeadSteps(learner, steps, classes=classes).eval()
        return AdaptingGraph(**given)
    given["module"] = Unrolled(learner, steps, classes=classes).eval()
    return UnrolledGraph(**given)
