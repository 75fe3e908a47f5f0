"""From a run's folder to a learner that can be used, without the data that it was trained on."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from metakd.adaptation.algorithm import Algorithm, MetricAlgorithm
from metakd.adaptation.gradient_learner import GradientLearner
from metakd.adaptation.judged import Judged
from metakd.algorithms.supervised import Supervised
from metakd.config.overrides import quoted
from metakd.config.recorded import recorded_composed
from metakd.config.schema import ArchitectureConfig, Config
from metakd.data.load import data_root_from
from metakd.distillation.teacher import FrozenTeacher
from metakd.errors import UserError, nearest
from metakd.exporting.loading import is_exported, open_exported
from metakd.models.network import Network
from metakd.pipeline.cards import card_of_run
from metakd.pipeline.compressed_file import NAME, read_structure, run_with_compressed
from metakd.pipeline.construction import settings_of
from metakd.pipeline.device import choose_device
from metakd.pipeline.judging import centroid_learner, mean_of
from metakd.pipeline.measure import precision_of, steps_at_test
from metakd.pipeline.prepared import Prepared
from metakd.pipeline.teaching import adapting_teacher_config
from metakd.registry import build, resolve
from metakd.runs.atomic import write_text
from metakd.runs.checkpoints import load_weights
from metakd.runs.folder import RunFolder, open_run
from metakd.runs.record import read_file
from metakd.runs.records_using import Calibration, CalibrationFile
from metakd.stages.recorder import Recorder
from metakd.using.bundle import learner_of, open_bundle
from metakd.using.calibration import calibrate, evaluated_tasks
from metakd.using.classifier import FewShotClassifier
from metakd.using.learner import Trained
from metakd.using.recipe import Part, Recipe, build_learner, centred_weights
from metakd.using.regressor import FewShotRegressor
from metakd.using.saved_folder import FILE

__all__ = ["CALIBRATION", "calibrate_run", "calibration_of", "load", "recipe_of", "trained_of"]

CALIBRATION = "calibration.json"
"""In a run's folder of checkpoints."""
TASKS = 100
"""Most meta-validation tasks that a model is calibrated on."""
MODELS = ("student", "compressed", "student_alone", "teacher")
NO_MEANS: Mapping[str, Tensor] = {}

logger = logging.getLogger(__name__)


def load(
    path: Path,
    which: str = "student",
    *,
    device: str = "auto",
    batch_size: int = 256,
    batchnorm: str | None = None,
    steps: int | None = None,
    plugins: Sequence[str] = (),
) -> FewShotClassifier | FewShotRegressor:
    """Return a model of a run, a saved learner or an exported one, ready for `fit` or `predict`.

    Args:
        path: a run's folder, or one that `save` or `metakd export` wrote.
        which: `student`, `compressed`, `student_alone` or `teacher`, of a run; `compressed` is the
            run's own, else that of its newest `metakd compress`.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
        batch_size: pictures that are read and asked about at once.
        batchnorm: `inductive` or `transductive`; None: as saved, else inductive.
        steps: of adaptation; None: as saved, else as the run was evaluated.
        plugins: modules whose classes the caller permits.

    Raises:
        UserError: neither a run nor a saved learner, or one that cannot be used here.
    """
    path = path.expanduser()
    if which not in MODELS:
        hint = nearest(str(which), MODELS)
        raise UserError(f"which={which}: choose one of {', '.join(MODELS)}.{hint}")
    if isinstance(plugins, str):
        raise UserError(f"plugins='{plugins}': give a list of modules: plugins=['{plugins}']")
    if (path / FILE).is_file():
        settings: dict[str, Any] = {"batch_size": batch_size, "batchnorm": batchnorm}
        if is_exported(path):
            found = open_exported(path, device, steps=steps, **settings)
        else:
            found = open_bundle(path, choose_device(device), plugins, steps=steps, **settings)
        held = found.trained.recipe.model
        if which not in ("student", held):
            raise UserError(f"which={which}: '{path}' holds the run's {held}; leave it out")
        return found
    where = choose_device(device)
    if not (path / "run.json").is_file():
        what = "is neither a run's folder nor a saved learner" if path.exists() else "is not there"
        raise UserError(
            f"'{path}' {what}; name a folder such as outputs/NAME/DATE_TIME, or one that save(…) "
            "wrote"
        )
    trained = trained_of(open_run(path), which, plugins)
    trained.algorithm.to(where)
    return learner_of(
        trained, batch_size=batch_size, batchnorm=batchnorm or "inductive", steps=steps
    )


def trained_of(run: RunFolder, which: str, plugins: Sequence[str]) -> Trained:
    """Return one of a run's models, on the CPU.

    Raises:
        UserError: it has none of this name, or one that cannot be used here.
    """
    if which == NAME:
        run = run_with_compressed(run) or run
    found = [m for m in MODELS if (run.checkpoints / f"{m}.safetensors").is_file()]
    if which not in found:
        has = "it has none yet: let it finish first"
        if found:
            has = f"it has {', '.join(found)}"
        elif run.read_run().status == "finished":
            has = "it has no model at all: name the folder of the run that trained one"
        raise UserError(f"run '{run.path}' has no {which}; {has}")
    words = [quoted(f"plugins=[{','.join(plugins)}]")] if plugins else []
    config = recorded_composed(run.path, run.read_run(), words).config
    weights = load_weights(run.checkpoints, which)
    file = run.checkpoints / f"{which}.safetensors"
    card = card_of_run(run, which)
    if config.dataset.supports.kind == "regression":
        shape = _numbers(config)
    elif card is None or card.preprocessing is None:
        raise UserError(
            f"'{file}' does not say what it expects of a picture (an older version wrote it); "
            "train again to use it"
        )
    else:
        shape = card.preprocessing.shape
    precision = run.read_run().precision or "float32"
    recipe = recipe_of(config, which, shape, weights, precision)
    if which == NAME:
        recipe = replace(recipe, structure=asdict(read_structure(run)))
    if which == "teacher" and "head.weight" in weights:
        weights = {f"network.{name}": tensor for name, tensor in weights.items()}
    if recipe.centred:
        weights = centred_weights(weights, mean_of(run, which))
    if config.evaluate.augmented_shots > 1:
        logger.warning(
            "run '%s' was evaluated with evaluate.augmented_shots=%d; here each example is "
            "embedded once, as it is",
            run.path,
            config.evaluate.augmented_shots,
        )
    return Trained(
        recipe,
        build_learner(recipe, weights, plugins),
        None if card is None else card.preprocessing,
        calibration_of(run, which),
        config.dataset.name if card is None or not card.dataset else card.dataset,
        tuple(plugins),
        card.classes if config.task.whole and card is not None else (),
    )


def recipe_of(
    config: Config,
    which: str,
    example_shape: tuple[int, ...],
    weights: Mapping[str, Tensor],
    precision: str,
) -> Recipe:
    """Return how one of a run's models is built again.

    Args:
        config: the run's.
        which: `student`, `compressed`, `student_alone` or `teacher`.
        example_shape: of an example.
        weights: the model's, which tell how many outputs it has.
        precision: what the run recorded: `float32` or `bfloat16`.
    """
    task, algorithm = config.task, config.algorithm
    steps = steps_at_test(config)
    evaluated_in = "float32" if algorithm.supports.adapts else precision  # see `precision_of`
    architecture = config.student
    base_only = False
    part = Part(algorithm._target_, settings_of(algorithm), dict(algorithm.options))
    fixed = algorithm.supports.fixed_ways
    if which == "teacher":
        architecture = config.teacher
        if "head.weight" in weights:  # a network: evaluated by its embeddings
            part = Part(f"{Supervised.__module__}.{Supervised.__name__}", {"head": "centroid"})
            steps, evaluated_in, fixed = None, precision, False
        else:
            own = adapting_teacher_config(config)
            part = Part(own._target_, settings_of(own), dict(own.options))
            base_only, fixed = algorithm.supports.teaches, own.supports.fixed_ways
            given = own.inner_steps if own.inner_steps_test is None else own.inner_steps_test
            steps = given if own.supports.adapts else None
            evaluated_in = "float32" if own.supports.adapts else precision
    return Recipe(
        model=which,
        kind=config.dataset.supports.kind,
        example_shape=tuple(example_shape),
        backbone=_architecture(architecture),
        algorithm=part,
        outputs=_outputs(weights, task.training().ways),
        fixed_ways=fixed and config.dataset.supports.kind == "classification",
        base_only=base_only,
        steps=steps,
        ways=task.ways,
        shots=task.shots,
        precision=evaluated_in,
        channels_last=True,
        centred=config.evaluate.centre,
        members=config.teacher.networks() if which == "teacher" else 1,
    )


def _architecture(config: ArchitectureConfig) -> Part:
    settings = settings_of(config)
    kept = ("checkpoint",) if config.supports.reads_checkpoint else ()  # a run has no copy
    for start in (
        "checkpoint",
        "further_checkpoints",
        "same_classes",
        "pretrained",
        "pretrained_anyway",
        "seed",
        "seeds",
    ):
        if start not in kept:
            settings.pop(start, None)  # its weights are the run's own
    return Part(config._target_, settings, dict(config.options))


def _outputs(weights: Mapping[str, Tensor], ways: int) -> int:
    heads = [tensor for name, tensor in weights.items() if f".{name}".endswith(".head.weight")]
    return len(heads[0]) if heads else ways


def _numbers(config: Config) -> tuple[int, ...]:
    """Return the shape of a regression example; such tasks are computed, not read."""
    dataset = config.dataset
    made = build(
        resolve(dataset._target_, "metakd.data", config.plugins),
        data_root_from(config.data_root),
        settings=settings_of(dataset),
        options=dataset.options,
    ).load()
    shape: tuple[int, ...] = made.example_shape
    return shape


def calibration_of(run: RunFolder, which: str) -> Calibration | None:
    """Return what the run found of the model's confidence; None, said in a line, if nothing."""
    path = run.checkpoints / CALIBRATION
    if not path.is_file():
        logger.warning(
            "run '%s' has no %s: probabilities are not calibrated (temperature 1)",
            run.path,
            CALIBRATION,
        )
        return None
    return read_file(path, CalibrationFile).models.get(which)


def calibrate_run(
    prepared: Prepared,
    folder: RunFolder,
    models: Mapping[str, Algorithm | Network],
    recorder: Recorder,
    own: FrozenTeacher | None = None,
    means: Mapping[str, Tensor] = NO_MEANS,
) -> None:
    """Calibrate a run's models on meta-validation tasks and keep what was found in its folder.

    Nothing is written for a regression, a whole dataset, or where meta-validation has too few
    classes.

    Args:
        prepared: the run.
        folder: its folder.
        models: by name the learners, and the teacher that is evaluated by its embeddings.
        recorder: of the run.
        own: see `metakd.pipeline.measure_teacher.evaluate_teacher`.
        means: by model, by which its embeddings are centred.
    """
    config, data, task = prepared.config, prepared.data, prepared.config.task
    if task.whole or not data.has_classes or data.split("validate").classes < task.ways:
        return
    tasks = min(TASKS, config.evaluate.tasks)
    found: dict[str, Calibration] = {}
    for name, model in models.items():
        steps, precision = steps_at_test(config), precision_of(config, prepared.precision)
        if isinstance(model, Network):
            model = centroid_learner(model, data)
            steps, precision = None, prepared.precision
        elif name == "teacher":
            steps = model.test_steps if isinstance(model, GradientLearner) else None
            precision = prepared.precision if steps is None else prepared.precision.full()
        if name in means:
            assert isinstance(model, MetricAlgorithm)  # others are refused
            model = Judged(model, means[name])
        evaluated = evaluated_tasks(
            model,
            data,
            split="validate",
            ways=task.ways,
            shots=task.shots,
            queries=task.queries,
            tasks=tasks,
            seed=config.evaluate.seed,
            steps=steps,
            precision=precision,
            embeddings=own.clean("validate") if own and name == "teacher" else None,
        )
        if not len(evaluated.known):
            recorder.warn(f"the {name} is not calibrated: no answer on meta-validation was finite")
            continue
        found[name] = calibrate(
            evaluated, split="validate", tasks=tasks, ways=task.ways, shots=task.shots
        )
    write_text(folder.checkpoints / CALIBRATION, CalibrationFile(models=found).text())
