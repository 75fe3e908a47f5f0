"""Tiny images and what the tests of use share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import metakd
from metakd.adaptation.algorithm import Algorithm
from metakd.config.compose import compose
from metakd.config.recorded import recorded_composed
from metakd.config.schema import Config
from metakd.data.class_examples import ClassExamples, PreparedData
from metakd.data.images import ImageData
from metakd.data.picture_preprocessing import PicturePreprocessing
from metakd.data.splits import SPLITS
from metakd.pipeline.construction import settings_of
from metakd.pipeline.prepare import prepare
from metakd.pipeline.use import recipe_of
from metakd.registry import build, resolve
from metakd.runs.folder import open_run
from metakd.runs.records_using import Calibration
from metakd.using.bundle import learner_of
from metakd.using.learner import Trained
from metakd.using.recipe import Recipe, build_learner


def calibration_of(**known: Any) -> Calibration:
    """Return a calibration of which only `known` matters."""
    rest = {"scale": 1.0, "split": "validate", "tasks": 1, "ways": 2, "shots": 1}
    rest |= {"score": "probability", "quantiles": (), "auroc": {}, "curve": ()}
    return Calibration(**{**rest, **known})


def make_part(classes: int, per_class: int, seed: int) -> ClassExamples:
    """Return images [classes * per_class, 1, 12, 12]: a random pattern a class, and noise."""
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.randint(40, 216, (classes, 1, 12, 12), generator=generator)
    labels = torch.arange(classes).repeat_interleave(per_class)
    noise = torch.randint(-90, 90, (len(labels), 1, 12, 12), generator=generator)
    return ClassExamples(
        examples=(patterns[labels] + noise).clamp(0, 255).to(torch.uint8),
        labels=labels,
        class_names=tuple(f"{seed}/{c}" for c in range(classes)),
        groups=torch.zeros(classes, dtype=torch.int64),
        held_out=torch.zeros(len(labels), dtype=torch.bool),
    )


@pytest.fixture(scope="session")
def tiny() -> ImageData:
    """8 meta-train, 6 meta-validation and 6 meta-test classes of 12 images each."""
    parts = {p: make_part(n, 12, i) for i, (p, n) in enumerate(zip(SPLITS, (8, 6, 6), strict=True))}
    return ImageData(PreparedData(parts, "tiny"))


SMALL = (
    "task.ways=3",
    "task.shots=4",
    "student=cnn",
    "student.width=4",
    "teacher=cnn",
    "teacher.width=4",
    "algorithm.inner_steps_test=3",
)
"""What is typed for every learner here, before what a test types."""


@functools.cache
def composed(words: tuple[str, ...]) -> Config:
    return compose(words).config


def shake(module: nn.Module) -> None:
    """Give buffers values that the default ones cannot be taken for."""
    for name, buffer in module.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.3)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
        elif name == "offsets":
            buffer.normal_(0, 0.05)


@pytest.fixture(scope="session")
def made() -> Callable[..., tuple[Algorithm, Recipe]]:
    """Return a factory of learners with random weights, and of the recipes of runs that have them.

    Built as the pipeline builds them, from what is typed.
    """

    def make(shape: tuple[int, ...], outputs: int, *typed: str) -> tuple[Algorithm, Recipe]:
        config = composed((*SMALL, "distill=none", *typed))
        with torch.random.fork_rng():
            torch.manual_seed(1)
            backbone = build(
                resolve(config.student._target_, "metakd.models"),
                shape,
                settings=settings_of(config.student),
                options=config.student.options,
            )
            learner: Algorithm = build(
                resolve(config.algorithm._target_, "metakd.algorithms"),
                backbone,
                outputs,
                settings=settings_of(config.algorithm),
                options=config.algorithm.options,
            )
            shake(learner)
        return learner, recipe_of(config, "student", shape, learner.state_dict(), "float32")

    return make


@pytest.fixture(scope="session")
def used() -> Callable[..., Any]:
    """Return what a user works with, built again from a recipe and weights."""

    def use(
        recipe: Recipe,
        weights: dict[str, torch.Tensor],
        data: ImageData | None,
        calibration: Calibration | None = None,
        **settings: Any,
    ) -> Any:
        preprocessing = None
        if data is not None:
            mean, std = data.mean.tolist(), data.std.tolist()
            preprocessing = PicturePreprocessing(*data.example_shape, tuple(mean), tuple(std))
        learner = build_learner(recipe, weights)
        return learner_of(Trained(recipe, learner, preprocessing, calibration, "tiny"), **settings)

    return use


@pytest.fixture(scope="session")
def made_up_learner(made: Any, used: Any, tiny: ImageData) -> Callable[..., Any]:
    """Return a factory of classifiers that tell three classes apart, with random weights."""

    def make(algorithm: str, *typed: str, **settings: Any) -> Any:
        outputs = 8 if algorithm == "supervised" else 3
        learner, recipe = made(tiny.example_shape, outputs, f"algorithm={algorithm}", *typed)
        return used(recipe, learner.state_dict(), tiny, **{"batch_size": 4, **settings})

    return make


@pytest.fixture(scope="session")
def glyph_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run on glyphs of 16 x 16 pixels, with a teacher and an undistilled twin."""
    folder = tmp_path_factory.mktemp("runs") / "glyphs"
    metakd.train(
        "dataset.image_size=16",
        "student.width=8",
        "teacher.width=8",
        "pretrain.epochs=1",
        "warmstart.epochs=1",
        "meta_train.iterations=4",
        "meta_train.validate_every=4",
        "meta_train.validate_tasks=4",
        "task.train_ways=5",
        "task.meta_batch=2",
        "task.queries=6",
        "evaluate.tasks=12",
        "evaluate.shots=[]",
        "evaluate.transductive=false",
        "tracker=none",
        f"hydra.run.dir={folder}",
    )
    return folder


@pytest.fixture(scope="session")
def glyphs(glyph_run: Path) -> ImageData:
    """The data of that run."""
    run = open_run(glyph_run)
    data = prepare(recorded_composed(run.path, run.read_run())).data
    assert isinstance(data, ImageData)
    return data
