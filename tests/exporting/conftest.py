"""Tiny trained learners, made of plain values, and what they say of a task."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from metakd.data.tasks import TaskBatch
from metakd.registry import build, resolve
from metakd.using.learner import Trained
from metakd.using.recipe import Part, Recipe, build_learner

CONV4 = Part("metakd.models.conv4.Conv4", options={"widths": [3, 4, 3, 4]})


@pytest.fixture(scope="session")
def made_up_trained() -> Callable[..., Trained]:
    """Return a factory of learners whose every parameter and buffer is random."""

    def make(
        algorithm: str,
        *,
        shape: tuple[int, ...] = (1, 16, 16),
        backbone: Part = CONV4,
        outputs: int = 3,
        steps: int | None = None,
        statistics: bool = True,
        kind: str = "classification",
        preprocessing: Any = None,
        centred: bool = False,
        **options: Any,
    ) -> Trained:
        part = Part(f"metakd.algorithms.{algorithm}", options=options)
        recipe = Recipe(
            model="student",
            kind=kind,
            example_shape=shape,
            backbone=backbone,
            algorithm=part,
            outputs=outputs,
            fixed_ways=steps is not None,
            base_only=False,
            steps=steps,
            ways=3,
            shots=2,
            precision="float32",
            channels_last=False,
            centred=centred,
        )
        with torch.random.fork_rng():
            torch.manual_seed(1)
            body = resolve(backbone.target, "metakd.models")
            network = build(body, shape, settings=backbone.settings, options=backbone.options)
            learner = build(
                resolve(part.target, "metakd.algorithms"), network, outputs, options=options
            )
            weights = {name: _shaken(name, value) for name, value in learner.state_dict().items()}
            if centred:
                weights = {f"learner.{name}": value for name, value in weights.items()}
                weights["sphere.mean"] = 0.3 * torch.randn(network.embedding_size)
        if not statistics:
            weights = {n: w for n, w in weights.items() if "running" not in n and "num_b" not in n}
        return Trained(recipe, build_learner(recipe, weights), preprocessing, None, "made up")

    return make


@pytest.fixture(scope="session")
def made_up_task() -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    """Return a factory of support, one-hot labels and queries; the last class has the fewest."""

    def make(ways: int, examples: int, queries: int, shape: tuple[int, ...]) -> Any:
        generator = torch.Generator().manual_seed(examples)
        labels = torch.eye(ways)[torch.arange(examples) % ways]
        support, query = (torch.randn(n, *shape, generator=generator) for n in (examples, queries))
        return support, labels, query

    return make


@pytest.fixture(scope="session")
def own_outputs() -> Callable[..., Tensor]:
    """Return what a learner itself says of a task, computed in float64, as float32."""

    def predict(
        trained: Trained, support: Tensor, labels: Tensor, query: Tensor, steps: int = 0
    ) -> Tensor:
        classes = trained.recipe.kind == "classification"

        def wide(x: Tensor) -> Tensor:
            return x.double() if x.is_floating_point() else x

        batch = TaskBatch(
            support=wide(support[None]),
            support_targets=(labels.argmax(1) if classes else labels.double())[None],
            query=wide(query[None]),
            query_targets=torch.zeros(1, len(query), dtype=torch.int64),
            ways=labels.shape[1],
            shots=1,
            queries=len(query),
        )
        learner = copy.deepcopy(trained.algorithm)
        for module in learner.modules():
            if hasattr(module, "dtype"):  # of a learner that computes in bfloat16
                module.dtype = None
        found = learner.double().predict(batch, (steps,), "inductive")
        return found[0, 0, :, : labels.shape[1]].float()

    return predict


def _shaken(name: str, value: torch.Tensor) -> torch.Tensor:
    if name.endswith(("running_var", "rule.squares", "rule.taken")):  # above 0
        return torch.rand_like(value) + 0.5
    if not value.is_floating_point():
        return value
    return value + 0.1 * torch.randn_like(value)
