"""`fit` and `predict` on evaluation tasks give the very predictions that `evaluate` counted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from metakd.adaptation.algorithm import Algorithm
from metakd.algorithms.maml import MAML
from metakd.algorithms.supervised import Supervised
from metakd.config.compose import compose
from metakd.config.locate import Choices, content_of
from metakd.data.dataset import RegressionTasks
from metakd.data.images import ImageData
from metakd.data.sinusoid import SinusoidTasks
from metakd.errors import UserError
from metakd.models.network import Network
from metakd.pipeline.construction import settings_of
from metakd.pipeline.teaching import adapting_teacher_config
from metakd.pipeline.use import recipe_of
from metakd.registry import build, resolve
from metakd.stages.evaluate import EvaluationSetting, evaluate, evaluation_tasks
from metakd.stages.measurement import Measurement
from metakd.stages.precision import Precision
from metakd.task_spec import TaskSpec

SPEC = TaskSpec(ways=3, shots=4, queries=5)
DRAWN: dict[str, int] = {"tasks": 6, "seed": 0}
CASES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(Choices().of("algorithm"), ()),
    "protonet cosine": ("algorithm.distance=cosine",),
    "protonet resnet": ("student=resnet8",),
    "maml rates": ("algorithm.options.learn_rates=per_layer_per_step",),
    "maml layer norm": ("student.norm=layer",),
    "reptile": ("algorithm.inner_batch=5",),
    "reptile carried": ("algorithm.options.inner_state=carried",),
    "supervised linear": ("algorithm.head=linear",),
    "adversarial best": ("algorithm.options.start=best", "algorithm.options.noises=3"),
    "adversarial anil": ("algorithm.options.start=best", "algorithm.base=anil"),
    "adversarial protonet": ("algorithm.options.start=best", "algorithm.base=protonet"),
}
"""What is typed beside the algorithm, the first word of each name."""

ADAPTING = (
    "algorithm=maml",
    "distill=kd",
    "distill.teacher_mode=co_meta",
    "distill.teacher_inner_steps=2",
    "teacher=cnn",
    "teacher.width=4",
    "task.ways=3",
)


def measured(
    learner: Algorithm, data: ImageData | RegressionTasks, steps: int | None, mode: str
) -> Measurement:
    return evaluate(
        learner,
        data,
        EvaluationSetting(
            "test", SPEC, **DRAWN, steps=None if steps is None else [steps], batchnorm=mode
        ),
        precision=Precision(None, "cpu"),
    )[0]


def check(model: Any, data: ImageData, found: Measurement, tolerance: float = 1e-3) -> None:
    """Compare every answer to every query of every task."""
    ways, pixels = SPEC.ways, data.test.examples
    batches = list(evaluation_tasks(data, "test", SPEC, **DRAWN))
    support = torch.cat([b.support_index for b in batches])
    query = torch.cat([b.query_index for b in batches])
    labels = [way for way in range(ways) for _ in range(SPEC.shots)]
    for task in range(len(support)):
        model.fit(pixels[support[task]], labels)
        predicted = model.predict(pixels[query[task]])
        assert predicted.tolist() == found.logits[task, :, :ways].argmax(-1).tolist()
        right = model.score(pixels[query[task]], found.targets[task])
        assert right == pytest.approx(float(found.values[task]))
        assert model.decision_function(pixels[query[task]]) == pytest.approx(
            found.logits[task, :, :ways].numpy(), rel=tolerance, abs=0.1 * tolerance
        )


@pytest.mark.parametrize("mode", ["inductive", "transductive"])
@pytest.mark.parametrize("case", CASES)
def test_the_predictions_that_evaluate_counted(
    case: str, mode: str, tiny: ImageData, made: Any, used: Any
) -> None:
    algorithm = case.split()[0]
    supports = content_of(Choices().file("algorithm", algorithm)).get("supports", {})
    of_batches = supports.get("trains_on") == "batches"
    outputs = tiny.train.classes if of_batches else SPEC.ways
    learner, recipe = made(tiny.example_shape, outputs, f"algorithm={algorithm}", *CASES[case])
    found = measured(learner, tiny, recipe.steps, mode)
    # The tasks differ and so do the answers to them: nothing is the same whatever is asked.
    assert len(found.logits.argmax(-1).flatten().unique()) > 1
    check(used(recipe, learner.state_dict(), tiny, batchnorm=mode), tiny, found)


@pytest.mark.parametrize("mode", ["inductive", "transductive"])
def test_a_teacher_that_adapts(mode: str, tiny: ImageData, used: Any) -> None:
    config = compose([*ADAPTING]).config
    own = adapting_teacher_config(config)
    torch.manual_seed(0)
    body = resolve(config.teacher._target_, "metakd.models")
    backbone = build(body, tiny.example_shape, settings=settings_of(config.teacher), options={})
    learner = build(
        MAML,
        backbone,
        3,
        options={"inner_lr": own.inner_lr, "inner_steps": 2, "inner_steps_test": 2},
    )
    weights = learner.state_dict()
    recipe = recipe_of(config, "teacher", tiny.example_shape, weights, "float32")
    assert (recipe.steps, recipe.outputs, recipe.fixed_ways) == (2, 3, True)
    found = measured(learner, tiny, 2, mode)
    check(used(recipe, weights, tiny, batchnorm=mode), tiny, found)


def test_a_teacher_that_embeds(tiny: ImageData, used: Any) -> None:
    config = compose(["teacher=resnet8", "teacher.width=4"]).config
    torch.manual_seed(0)
    body = resolve(config.teacher._target_, "metakd.models")
    backbone = build(body, tiny.example_shape, settings=settings_of(config.teacher), options={})
    network = Network(backbone, tiny.train.classes)
    weights = network.state_dict()
    recipe = recipe_of(config, "teacher", tiny.example_shape, weights, "float32")
    assert (recipe.steps, recipe.fixed_ways) == (None, False)
    found = measured(Supervised(backbone, 8, head="centroid"), tiny, None, "inductive")
    check(used(recipe, {f"network.{k}": v for k, v in weights.items()}, tiny), tiny, found)


@pytest.mark.parametrize("algorithm", ["maml", "anil", "reptile", "lstm"])
def test_regression(algorithm: str, made: Any, used: Any) -> None:
    data = SinusoidTasks()
    words = (f"algorithm={algorithm}", "student=mlp", "student.width=8", "dataset=sinusoid")
    learner, recipe = made((1,), 1, *words, "pretrain=none", "warmstart=none")
    found = measured(learner, data, recipe.steps, "inductive")
    model = used(recipe, learner.state_dict(), None, batch_size=2)
    (batch,) = evaluation_tasks(data, "test", SPEC, **DRAWN)
    for task in range(len(batch)):
        x, y = batch.support[task].numpy(), batch.support_targets[task].numpy()
        asked, truth = batch.query[task].numpy(), batch.query_targets[task].numpy()
        predicted = model.fit(x, y).predict(asked)
        assert predicted == pytest.approx(found.logits[task].numpy(), rel=1e-4, abs=1e-5)
        assert float(((predicted - truth) ** 2).mean()) == pytest.approx(
            float(found.values[task]), rel=1e-4
        )
        flat = model.fit(x[:, 0], y[:, 0]).predict(asked[:, 0])
        assert flat.shape == (SPEC.queries,)
        assert np.array_equal(flat, predicted[:, 0])
        spread = ((truth - truth.mean()) ** 2).sum()
        assert model.score(asked, truth) == pytest.approx(
            1 - ((truth - predicted) ** 2).sum() / spread, rel=1e-4, abs=1e-6
        )  # a difference of numbers near 1, which may be near 0
        with pytest.raises(UserError, match="for 1 inputs; give one for each"):
            model.score(asked[:1], truth)


def test_bfloat16_gives_the_same_answers(tiny: ImageData, made: Any, used: Any) -> None:
    learner, recipe = made(tiny.example_shape, 3, "algorithm=protonet")
    half = Precision(torch.bfloat16, "cpu")
    found = evaluate(
        learner,
        tiny,
        EvaluationSetting("test", SPEC, **DRAWN, batchnorm="inductive"),
        precision=half,
    )[0]
    model = used(replace(recipe, precision="bfloat16"), learner.state_dict(), tiny)
    check(model, tiny, found, tolerance=0.05)
    exact = used(recipe, learner.state_dict(), tiny)
    pixels = tiny.test.examples
    assert model.fit(pixels[::12], range(6)).decision_function(pixels) != pytest.approx(
        exact.fit(pixels[::12], range(6)).decision_function(pixels), rel=1e-5
    )
