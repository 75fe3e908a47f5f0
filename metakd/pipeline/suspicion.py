"""What a run should not keep to itself: what it is trained on, and figures that cannot be right."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from metakd.config.needs import declared_needs
from metakd.config.schema import Config
from metakd.data.class_data import ClassData
from metakd.data.dataset import RegressionTasks
from metakd.data.images import ImageData
from metakd.data.splits import SPLITS
from metakd.distillation.teacher import FrozenTeacher
from metakd.models.randomness import random_state, restore_random_state
from metakd.pipeline.alone import validated_alone
from metakd.pipeline.learners import Taught
from metakd.pipeline.measure import Evaluated, precision_of, validation_setting
from metakd.pipeline.meta_pretrain import teacher_updates
from metakd.pipeline.prepared import Prepared
from metakd.registry import resolve
from metakd.reports.divergence import answers
from metakd.reports.statistics import mean_ci95, paired_difference
from metakd.reports.summary import MODELS
from metakd.runs.folder import RunFolder
from metakd.stages.evaluate import evaluate, evaluation_tasks
from metakd.stages.recorder import Recorder

__all__ = ["NEAR", "TASKS", "counts", "doubt_teacher", "doubts_of", "keep"]

TASKS = 100
"""Meta-validation tasks on which teacher and student are held against each other, at most."""

NEAR = 0.1
"""Near chance: less than this share of what there is to win above it."""


def counts(data: ClassData | RegressionTasks) -> str | None:
    """Return how many classes and examples each split has, in a line; None for regression."""
    if not data.has_classes:
        return None
    found, what = [], "images" if data.has_pictures else "examples"
    for split in SPLITS:
        of = data.split(split)
        found.append(f"{split} {of.classes} classes, {len(of)} {what}")
    return "; ".join(found)


def doubt_teacher(prepared: Prepared, recorder: Recorder, taught: Taught | None) -> None:
    """Warn of a teacher from which there is little to learn, before the student trains.

    It is evaluated on the first tasks by which the student will be chosen, as it will answer, and
    beside it the student as it is now. A teacher near chance, or not better than that student on
    the same tasks (the 95 % interval of the paired difference is not above 0), is said, and kept
    in run.json. So is one that is worse than the student alone, where the cache has the latter:
    before it was trained once there is no such figure, and `doubts_of` says it afterwards. No
    random number is drawn, and process 0 does it alone.

    Args:
        prepared: what the run works on.
        recorder: where the warning goes.
        taught: the teacher; one that is not trained before the student is not evaluated.
    """
    config, data = prepared.config, prepared.data
    frozen = None if taught is None else taught.frozen
    helps = config.distill.supports.uses_teacher or config.algorithm.supports.teaches
    if frozen is None or not helps or recorder.group.rank or not data.has_classes:
        return
    if config.task.whole or config.task.ways > data.split("validate").classes:
        return  # no such task can be drawn; what needs one says so
    tasks = min(TASKS, max(2, config.meta_train.validate_tasks))
    state = random_state()
    try:
        teacher = _teacher_values(frozen, data, config, tasks)
        student = _student_values(prepared, tasks)
    finally:
        restore_random_state(state)
    alone = validated_alone(prepared, recorder.group.size)
    line = _doubt(teacher.tolist(), student.tolist(), config, alone)
    if line is not None:
        recorder.warn(line)
        keep(recorder.folder, [line])


def doubts_of(evaluated: Mapping[str, Evaluated], config: Config) -> list[str]:
    """Return what the final figures give reason to doubt, with what to type, a line each.

    Args:
        evaluated: by model; all on the same tasks.
        config: of the run.
    """
    if evaluated["student"].headline.kind == "regression":
        return _doubts_of_errors(evaluated, config)
    values = {name: one.headline.values.tolist() for name, one in evaluated.items()}
    alone, unit = values.get("student_alone"), evaluated["student"].headline.unit
    found = []
    if alone is not None:
        said = f"the student alone, without a teacher ({_percent(alone)})"
        gain, half = paired_difference(values["student"], alone)
        if values["student"] == alone:
            found.append(
                f"the teacher had no effect: on each of the {len(alone)} {unit} the distilled "
                "student is right exactly as often as the student alone (+0.00 ± 0.00 points); "
                f"type {_stronger(config)}"
            )
        elif gain + half < 0:
            # A teacher that is better than the student alone is not what is wrong.
            better = "teacher" in values and mean_ci95(values["teacher"])[0] > mean_ci95(alone)[0]
            remedy = _gentler(config) if better else _instead(config)
            found.append(
                f"distillation does harm: the distilled student ({_percent(values['student'])}) "
                f"is worse than {said}, by {-100 * gain:.1f} ± {100 * half:.1f} points on the "
                f"same {len(alone)} {unit}; type {remedy}"
            )
        if "teacher" in values:
            gain, half = paired_difference(values["teacher"], alone)
            if gain + half < 0:
                found.append(
                    f"the teacher ({_percent(values['teacher'])}) is worse than {said}, by "
                    f"{-100 * gain:.1f} ± {100 * half:.1f} points on the same {len(alone)} {unit}; "
                    f"type {_instead(config)}"
                )
    for name, one in evaluated.items():
        chance = 1.0 / one.headline.ways
        mean, half = mean_ci95(values[name])
        if mean - half <= chance and not one.headline.diverged.any():
            more = f"{_longer(config)}, or another meta_train.lr"
            remedy = _instead(config) if name == "teacher" else more
            found.append(
                f"the {MODELS[name]} is at chance: {_percent(values[name])}, where guessing gives "
                f"{100 * chance:.1f} %; type {remedy}"
            )
    return found


def _doubts_of_errors(evaluated: Mapping[str, Evaluated], config: Config) -> list[str]:
    """Return the same of squared errors, as far as there is a mean of them."""
    if "student_alone" not in evaluated or any(
        j.headline.diverged.any() for j in evaluated.values()
    ):
        return []
    values = {name: one.headline.values.tolist() for name, one in evaluated.items()}
    alone = values["student_alone"]
    if values["student"] == alone:
        return [
            "the teacher had no effect: the distilled student has the student alone's error on "
            f"each of the {len(alone)} tasks; type {_stronger(config)}"
        ]
    found = []
    remedies = {
        "student": ("the distilled student", f"distill.kd_weight={config.distill.kd_weight / 4:g}"),
        "teacher": ("the teacher", f"pretrain.updates={4 * teacher_updates(config)}"),
    }
    for name, (called, remedy) in remedies.items():
        if name not in values:
            continue
        more, half = paired_difference(values[name], alone)
        if more - half > 0:
            found.append(
                f"{called} is worse than the student alone, by a squared error of {more:.3f} ± "
                f"{half:.3f} on the same {len(alone)} tasks; type {remedy}, or distill=none"
            )
    return found


def keep(folder: RunFolder | None, lines: Iterable[str]) -> None:
    """Add lines to the `warnings` of run.json; one that stands there already is not repeated."""
    if folder is None:
        return
    before = folder.read_run().warnings or []
    new = [line for line in lines if line not in before]
    if new:
        folder.update(warnings=[*before, *new])


def _teacher_values(teacher: FrozenTeacher, data: ClassData, config: Config, tasks: int) -> Tensor:
    """Return the teacher's accuracy on each task, [tasks] float64."""
    stream = evaluation_tasks(
        data,
        "validate",
        config.task.evaluation(),
        tasks=tasks,
        seed=config.evaluate.seed,
    )
    found = []
    for batch in stream:
        right = answers(teacher.predict(batch, "validate")) == batch.query_targets
        found.append(right.double().mean(1).cpu())
    return torch.cat(found)


def _student_values(prepared: Prepared, tasks: int) -> Tensor:
    """Return the accuracy of the student at its start on the same tasks, [tasks] float64."""
    config = prepared.config
    torch.manual_seed(config.seed)  # for the algorithm's own head, as when it is trained
    algorithm = prepared.algorithm(copy.deepcopy(prepared.student))
    return evaluate(
        algorithm,
        prepared.data,
        validation_setting(config, algorithm, tasks),
        precision=precision_of(config, prepared.precision),
    )[0].values


def _doubt(
    teacher: list[float], student: list[float], config: Config, alone: float | None = None
) -> str | None:
    chance = 1.0 / config.task.ways
    mean, half = mean_ci95(teacher)
    gain, apart = paired_difference(teacher, student)
    reasons = []
    if mean - half <= chance or mean < chance + NEAR * (1.0 - chance):
        reasons.append(f"near chance ({100 * chance:.1f} %)")
    if gain - apart <= 0:
        reasons.append("not better than the student before its training")
    if alone is not None and mean + half < alone:
        reasons.append(
            f"worse than the student alone, as another run has trained it ({100 * alone:.1f} % on "
            "meta-validation)"
        )
    if not reasons:
        return None
    return (
        f"there is little to learn from this teacher: it is right in {_percent(teacher)} on "
        f"{len(teacher)} meta-validation tasks, {' and '.join(reasons)}; the student before its "
        f"training is right in {_percent(student)} on the same tasks; type {_instead(config)}"
    )


def _percent(values: list[float]) -> str:
    mean, half = mean_ci95(values)
    return f"{100 * mean:.1f} ± {100 * half:.1f} %"


def _stronger(config: Config) -> str:
    """Return what to type for a teacher of more influence, or to do without one."""
    found = [
        f"distill.{name}={2 * getattr(config.distill, name) or 1.0:g}"
        for name in ("embedding_weight", "kd_weight")
        if config.distill.name.startswith(name.split("_")[0])
    ]
    found += [_longer(config), "distill=none"]
    return ", or ".join(found)


def _longer(config: Config) -> str:
    """Return what to type to train the student four times as long."""
    stage = config.meta_train
    if stage.epochs is not None:
        return f"meta_train.epochs={4 * stage.epochs}"
    return f"meta_train.iterations={4 * stage.iterations or 1000}"


def _gentler(config: Config) -> str:
    """Return what to type for a good teacher of less influence, or to do without one."""
    distill = config.distill
    weighed = not isinstance(distill.needs, Mapping) or "kd_weight" in distill.needs["logits"]
    if declared_needs(distill) == frozenset({"logits"}) and weighed:
        return f"distill.kd_weight={distill.kd_weight / 4:g}, or distill=none"
    return "distill=kd_convex, or distill=none"


def _of_pictures(config: Config) -> bool:
    """Tell whether the dataset is of pictures, which pretrained networks take."""
    dataset = resolve(config.dataset._target_, "metakd.data", config.plugins)
    return bool(getattr(dataset, "data_class", ImageData).has_pictures)


def _instead(config: Config) -> str:
    """Return what to type for a better teacher, or to do without one."""
    found = []
    if config.teacher.checkpoint is not None:
        found.append("another teacher.checkpoint=…")
    elif config.pretrain.enabled:
        found.append(f"pretrain.epochs={max(10, 4 * config.pretrain.epochs)}")
    supports = config.teacher.supports
    if not config.teacher.pretrained and not supports.outside and _of_pictures(config):
        torchvision = "" if supports.pretrained_on else "teacher=torchvision "
        found.append(f"{torchvision}teacher.pretrained=true")
    if not config.algorithm.supports.teaches:
        found.append("distill=none")
    return ", or ".join(found) if found else "another teacher"
