"""`fit` and `predict` on evaluation tasks give the very predictions that `evaluate` counted."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from metakd.algorithms.algorithm import Algorithm
from metakd.data.dataset import RegressionTasks
from metakd.data.images import ImageData
from metakd.data.preprocessing import Preprocessing
from metakd.pipeline.use import recipe_of
from metakd.registry import build, resolve
from metakd.stages.evaluate import Measurement, evaluate, evaluation_tasks
from metakd.stages.precision import Precision
from metakd.using.bundle import learner_of
from metakd.using.learner import Trained
from metakd.using.recipe import Recipe, build_learner

TASKS = {"ways": 3, "shots": 4, "queries": 5, "tasks": 6, "seed": 0}
SMALL = ["task.ways=3", "task.shots=4", "student=cnn", "student.width=4", "distill=none"]
CASES = {
    "protonet": [],
    "protonet_cosine": ["algorithm.distance=cosine"],
    "maml": ["algorithm.inner_steps_test=3"],
    "maml_rates": ["algorithm.options.learn_rates=per_layer_per_step"],
    "fomaml": ["algorithm.inner_steps_test=2"],
    "anil": ["algorithm.inner_steps_test=3"],
    "boil": ["algorithm.inner_steps_test=2"],
    "reptile": ["algorithm.inner_steps_test=4", "algorithm.inner_batch=5"],
    "meta_sgd": [],
    "meta_curvature": ["algorithm.inner_steps_test=2"],
    "lstm": ["algorithm.inner_steps_test=2"],
    "imaml": ["algorithm.inner_steps_test=3"],
    "relation": [],
    "ridge": [],
    "metabaseline": [],
    "supervised": [],
    "supervised_linear": ["algorithm.head=linear"],
    "adversarial": ["algorithm.inner_steps_test=2"],
    "adversarial_best": ["algorithm.options.start=best", "algorithm.options.noises=3"],
    "adversarial_anil": ["algorithm.options.start=best", "algorithm.base=anil"],
    "adversarial_protonet": ["algorithm.options.start=best", "algorithm.base=protonet"],
}
"""By name, which begins with the algorithm's, what is typed with it."""


def algorithm_of(case: str) -> str:
    whole = ("meta_sgd", "meta_curvature")
    return next((name for name in whole if case == name), case.partition("_")[0])


def made(case: str, shape: tuple[int, ...], outputs: int, *typed: str) -> tuple[Algorithm, Recipe]:
    """Return a learner with random weights, and the recipe of a run's that has it."""
    words = [*SMALL, f"algorithm={algorithm_of(case)}", *CASES[case], *typed]
    config = metakd_config(words)
    torch.manual_seed(1)
    body = resolve(config.student._target_, "metakd.models")
    from metakd.pipeline.prepare import settings_of

    backbone = build(body, shape, settings=settings_of(config.student), options={})
    learner: Algorithm = build(
        resolve(config.algorithm._target_, "metakd.algorithms"),
        backbone,
        outputs,
        settings=settings_of(config.algorithm),
        options=config.algorithm.options,
    )
    shake(learner)
    recipe = recipe_of(config, "student", shape, learner.state_dict(), "float32")
    return learner, recipe


def metakd_config(words: list[str]) -> Any:
    from metakd.config.compose import compose

    return compose(words).config


def shake(module: nn.Module) -> None:
    """Give buffers values that a default cannot be taken for."""
    for name, buffer in module.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.3)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
        elif name == "offsets":
            buffer.normal_(0, 0.05)


def used(recipe: Recipe, weights: dict[str, Tensor], data: ImageData | None, mode: str) -> Any:
    preprocessing = None
    if data is not None:
        mean, std = data.mean.tolist(), data.std.tolist()
        preprocessing = Preprocessing(*data.example_shape, tuple(mean), tuple(std))
    learner = build_learner(recipe, weights)
    trained = Trained(recipe, learner, preprocessing, None, "tiny")
    return learner_of(trained, batch_size=4, batchnorm=mode)


def measured(
    learner: Algorithm, data: ImageData | RegressionTasks, steps: int | None, mode: str
) -> Measurement:
    return evaluate(
        learner,
        data,
        part="test",
        **TASKS,
        steps=None if steps is None else [steps],
        batchnorm=mode,
        precision=Precision(None, "cpu"),
    )[0]


def check(model: Any, data: ImageData, found: Measurement) -> None:
    """Compare every answer to every query of every task."""
    ways, pixels = TASKS["ways"], data.test.images
    batches = list(evaluation_tasks(data, "test", **TASKS))
    support = torch.cat([b.support_index for b in batches])
    query = torch.cat([b.query_index for b in batches])
    labels = [way for way in range(ways) for _ in range(TASKS["shots"])]
    for task in range(len(support)):
        model.fit(pixels[support[task]], labels)
        predicted = model.predict(pixels[query[task]])
        assert predicted.tolist() == found.logits[task, :, :ways].argmax(-1).tolist()
        right = model.score(pixels[query[task]], found.targets[task])
        assert right == pytest.approx(float(found.values[task]))
        assert model.decision_function(pixels[query[task]]) == pytest.approx(
            found.logits[task, :, :ways].numpy(), rel=1e-3, abs=1e-4
        )


@pytest.mark.parametrize("mode", ["inductive", "transductive"])
@pytest.mark.parametrize("case", CASES)
def test_the_predictions_that_evaluate_counted(case: str, mode: str, tiny: ImageData) -> None:
    outputs = tiny.train.classes if case.startswith("supervised") else TASKS["ways"]
    learner, recipe = made(case, tiny.example_shape, outputs)
    found = measured(learner, tiny, recipe.steps, mode)
    # The tasks differ and so do the answers to them: nothing is the same whatever is asked.
    assert len(found.logits.argmax(-1).flatten().unique()) > 1
    check(used(recipe, learner.state_dict(), tiny, mode), tiny, found)


def test_every_algorithm_is_here() -> None:
    from metakd.config.locate import Choices

    assert {algorithm_of(case) for case in CASES} == {*Choices().of("algorithm")}
