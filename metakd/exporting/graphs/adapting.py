"""From a trained learner to the graph that adapts and answers as the run's evaluation does."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from metakd.adaptation.algorithm import Algorithm, MetricAlgorithm
from metakd.adaptation.gradient_learner import GradientLearner
from metakd.algorithms.adversarial import Adversarial
from metakd.algorithms.reptile import Reptile
from metakd.algorithms.ridge import Ridge
from metakd.data.text_preprocessing import TextPreprocessing
from metakd.errors import UserError
from metakd.exporting.graphs.gradient import gradient_graph
from metakd.exporting.graphs.graph import AdaptingGraph, sizes_apart
from metakd.exporting.graphs.metric import MetricHead, metric_graph
from metakd.exporting.graphs.ridge import RidgeHead
from metakd.models.onnx_model import OnnxModel
from metakd.teaching.teaching_algorithm import Joined
from metakd.using.learner import Trained

__all__ = ["adapting_graph", "example_inputs"]


def adapting_graph(
    trained: Trained,
    *,
    ways: int | None = None,
    shots: int | None = None,
    steps: int | None = None,
) -> AdaptingGraph:
    """Return a trained learner as a graph with the logits of its own evaluation.

    Batch norm is inductive, numbers are float32 whatever the precision of the evaluation was.

    Args:
        trained: the learner; it is left as it is.
        ways: classes of a task, where the graph is for one number of them; None: those of the
            run's evaluation.
        shots: examples of a class, where the graph is for one number of examples; None: likewise.
        steps: of adaptation; None: likewise.

    Raises:
        UserError: what cannot be exported, and why.
    """
    recipe = trained.recipe
    learner = copy.deepcopy(_learner(trained.algorithm)).cpu().eval()
    for parameter in learner.parameters():
        parameter.requires_grad_(False)
    if any(isinstance(module, OnnxModel) for module in learner.modules()):
        raise UserError(f"export: this {recipe.model} is an ONNX file already: copy that one")
    ways = recipe.ways if ways is None else ways
    shots = recipe.shots if shots is None else shots
    # Which examples a step of Reptile sees is a function of how many there are.
    batched = isinstance(learner, Reptile) and learner.inner_batch is not None
    given = _inputs(trained, ways, ways * shots if batched else None)
    if isinstance(learner, MetricAlgorithm):
        head = RidgeHead(learner) if type(learner) is Ridge else MetricHead(learner)
        return metric_graph(learner.backbone, head, given)
    if isinstance(learner, GradientLearner):
        return gradient_graph(learner, given, (recipe.steps or 0) if steps is None else steps)
    raise UserError(
        f"export: no graph is known of {type(learner).__name__}, a learner that neither compares "
        "embeddings nor adapts by gradient steps"
    )


def _learner(algorithm: Algorithm) -> Algorithm:
    """Return the learner that solves tasks, out of one that was trained with a teacher.

    Raises:
        UserError: it chooses a start for each task.
    """
    starts = algorithm.offsets if isinstance(algorithm, Adversarial) else None
    if starts is not None and bool(starts.any()):
        raise UserError(
            "export: with algorithm.options.start=best this student tries several starts on each "
            "task, which is no single graph; train with algorithm.options.start=mean"
        )
    return algorithm.student if isinstance(algorithm, Joined) else algorithm


def _inputs(trained: Trained, ways: int, examples: int | None) -> AdaptingGraph:
    """Return a graph without a module: examples of its inputs, and which sizes are free.

    Args:
        trained: the learner.
        ways: classes of a task.
        examples: the number of support examples, where it is fixed.
    """
    recipe = trained.recipe
    shape, limits = _shape(trained)
    n, q = sizes_apart(2, ways + 1, [*shape, ways, recipe.outputs, examples or 0])
    n = examples or n
    generator = torch.Generator().manual_seed(0)

    def made(count: int) -> Tensor:
        return _drawn(trained, count, generator)

    if recipe.kind == "regression":
        labels = {"targets": torch.randn(n, recipe.outputs, generator=generator)}
    else:
        labels = {"labels": torch.eye(ways)[torch.arange(n) % ways]}
    inputs = {"support": made(n), **labels, "query": made(q)}
    free = {"query": {0: "queries"}} | {name: {} for name in ("support", *labels)}
    if examples is None:
        free |= {name: {0: "examples"} for name in ("support", *labels)}
    if limits:
        free["support"][1] = free["query"][1] = "length"
    return AdaptingGraph(torch.nn.Identity(), inputs, free, limits, fixed_examples=examples)


def example_inputs(trained: Trained, taken: Sequence[int]) -> tuple[Tensor, dict[str, int]]:
    """Return a few made-up examples [n, *example], and the limits of sizes that may differ.

    Args:
        trained: the learner that reads them.
        taken: sizes that n has to differ from.
    """
    shape, limits = _shape(trained)
    (count,) = sizes_apart(1, 2, [*shape, *taken])
    return _drawn(trained, count, torch.Generator().manual_seed(0)), limits


def _shape(trained: Trained) -> tuple[tuple[int, ...], dict[str, int]]:
    """Return the shape of an example, and of texts the largest length."""
    texts = trained.preprocessing
    if not isinstance(texts, TextPreprocessing):
        return tuple(trained.recipe.example_shape), {}
    # Below the limit: at the limit tracing takes a size for fixed.
    return (texts.length - 1,), {"length": texts.length}


def _drawn(trained: Trained, count: int, generator: torch.Generator) -> Tensor:
    shape, texts = _shape(trained)[0], trained.preprocessing
    if not isinstance(texts, TextPreprocessing):
        return torch.randn(count, *shape, generator=generator)
    return torch.randint(1, texts.vocabulary + 1, (count, *shape), generator=generator)
