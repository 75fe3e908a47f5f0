"""Which evaluations a run makes, and how they become results.json."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from metakd.adaptation.algorithm import Algorithm, MetricAlgorithm
from metakd.config.schema import Config
from metakd.data.class_data import ClassData
from metakd.data.class_examples import ClassExamples
from metakd.data.dataset import RegressionTasks
from metakd.models.normalization import has_batchnorm
from metakd.pipeline.evaluation_cost import task_cost
from metakd.pipeline.whole import measured_states
from metakd.reports.by_group import accuracy_by_group
from metakd.reports.fidelity import expected_calibration_error
from metakd.reports.fidelity import fidelity as fidelity_of
from metakd.reports.statistics import paired_difference
from metakd.stages.evaluate import (
    EvaluationSetting,
    embed_split,
    embed_supports,
    embeds_alone,
    evaluate,
    images_of,
)
from metakd.stages.fit import Validation
from metakd.stages.measurement import Measurement
from metakd.stages.precision import Precision
from metakd.stages.recorder import Recorder
from metakd.stages.versions import Versions, embed_changed

__all__ = [
    "Evaluated",
    "batchnorm_modes",
    "chosen_by",
    "curve_steps",
    "evaluate_learner",
    "evaluate_settings",
    "evaluation_stage",
    "fidelity",
    "groups_of",
    "paired_gain",
    "paired_gains",
    "precision_of",
    "setting_of_plan",
    "start_of",
    "steps_at_test",
    "validation_setting",
    "versions_of",
]


CURVE = (0, 1, 2, 3, 5, 10, 20, 50)
"""Steps of the accuracy-against-steps curve, unless others are asked for."""


@dataclass
class Evaluated:
    """All measurements of one model; the first one is the headline.

    Attributes:
        measurements: by shots, steps and batch-norm mode.
        groups: examples whose classes were evaluated, where figures of each group are wanted.
        scale: what a teacher's cosines were multiplied by to become logits; None: it has none.
    """

    measurements: list[Measurement] = field(default_factory=list)
    groups: ClassExamples | None = None
    scale: float | None = None

    @property
    def headline(self) -> Measurement:
        """The task's ways and shots at the algorithm's test steps, inductive."""
        return self.measurements[0]

    def figures(self) -> dict[str, Any]:
        """Return `fewshot`, `fewshot_all` (or `whole` …) and `calibration` of results.json."""
        found, name = [self._entry(m) for m in self.measurements], self.headline.called
        entry: dict[str, Any] = {name: found[0], f"{name}_all": found}
        if self.headline.kind == "classification":
            entry["calibration"] = {
                "ece": expected_calibration_error(self.headline.logits, self.headline.targets)
            }
        if self.groups is not None and name == "fewshot":
            entry["by_group"] = [
                {"group": group, "shots": m.shots, **figures}
                for m in self.measurements
                if (m.steps, m.batchnorm) == (self.headline.steps, self.headline.batchnorm)
                for group, figures in _by_group(m, self.groups).items()
            ]
        return entry

    def _entry(self, measured: Measurement) -> dict[str, Any]:
        """Return a measurement's figures, with the step from which on tasks diverged."""
        entry = measured.figures()
        if measured.steps is None or "diverged" not in entry:
            return entry
        curve = {
            m.steps: m
            for m in self.measurements
            if (m.shots, m.batchnorm) == (measured.shots, measured.batchnorm)
            and m.steps is not None
        }
        if len(curve) > 1:  # one number of steps says nothing of where it began
            entry["diverged_from_step"] = min(s for s, m in curve.items() if m.diverged.any())
        return entry


def _by_group(measured: Measurement, groups: ClassExamples) -> dict[str, dict[str, Any]]:
    return accuracy_by_group(measured.logits, measured.targets, measured.classes, groups)


def steps_at_test(config: Config) -> int | None:
    """Return the adaptation steps of the headline; None for an algorithm that takes none."""
    if not config.algorithm.supports.adapts:
        return None
    given = config.algorithm.inner_steps_test
    return config.algorithm.inner_steps if given is None else given


def curve_steps(asked: list[int] | None, headline: int | None) -> list[int]:
    """Return the steps of the accuracy-against-steps curve, the headline's left out."""
    if headline is None:
        return []
    steps = [s for s in CURVE if s < headline] if asked is None else asked
    return sorted({*steps} - {headline})


def precision_of(config: Config, precision: Precision) -> Precision:
    """Return the number format of meta-training and few-shot evaluation.

    Adapting by gradient is done in float32: autocast's casts dominate on batches of a few
    images, and second derivatives lose more than first ones do.
    """
    return precision.full() if config.algorithm.supports.adapts else precision


def start_of(config: Config) -> dict[str, str]:
    """Return {"start": …} of results.json: from which generated start the student was evaluated."""
    start = config.algorithm.options.get("start")
    return {"start": str(start)} if config.algorithm.supports.teaches and start else {}


def batchnorm_modes(network: nn.Module, transductive: bool) -> list[str | None]:
    """Return the batch-norm modes to measure; the first one is the headline's."""
    if not has_batchnorm(network):
        return [None]
    return ["inductive", "transductive"] if transductive else ["inductive"]


def setting_of_plan(
    config: Config,
    shots: int,
    tasks: int,
    steps: list[int] | None,
    batchnorm: str | Sequence[str | None] | None,
) -> EvaluationSetting:
    """Return a setting of the evaluation that the config asks for."""
    e = config.evaluate
    spec, stage = config.task.evaluation(shots), evaluation_stage(e.part)
    return EvaluationSetting(
        e.part, spec, tasks, e.seed, stage, steps, batchnorm, versions_of(config)
    )


def versions_of(config: Config) -> Versions | None:
    """Return the versions of a support image that evaluation averages; None: the image alone."""
    e = config.evaluate
    if e.augmented_shots < 2:
        return None
    return Versions(e.augmented_shots, tuple(e.augment or config.dataset.augment))


def validation_setting(config: Config, algorithm: Algorithm, tasks: int) -> EvaluationSetting:
    """Return the setting in which a learner is validated, on so many meta-validation tasks.

    Clean images and embeddings as they are: the mean of all meta-train images, for centring, and
    more versions of each support image would be made anew at each validation.
    """
    steps = steps_at_test(config)
    return EvaluationSetting(
        "validate",
        config.task.evaluation(),
        tasks,
        config.evaluate.seed,
        steps=None if steps is None else [steps],
        batchnorm=batchnorm_modes(algorithm, False)[0],
    )


def chosen_by(
    algorithm: Algorithm,
    data: ClassData | RegressionTasks,
    setting: EvaluationSetting,
    every: int,
    precision: Precision,
    recorder: Recorder,
) -> Validation:
    """Return how a learner that is meta-trained is validated: the best state on `setting` stays."""
    regression = data.kind == "regression"

    def measure() -> float:
        measured = evaluate(algorithm, data, setting, precision=precision, group=recorder.group)[0]
        if measured.diverged.all() or (regression and measured.diverged.any()):
            return math.nan  # there is no figure by which it could be chosen
        return float(measured.values.mean())

    return Validation(measure, every, not regression)


def evaluate_learner(
    algorithm: Algorithm,
    data: ClassData | RegressionTasks,
    config: Config,
    precision: Precision,
    recorder: Recorder,
    title: str,
    best: Mapping[str, Tensor] | None = None,
) -> Evaluated:
    """Measure `algorithm` on every setting that the config asks for, the headline first.

    Of a whole dataset these are its last state and `best`, that of the best validation.
    """
    if config.task.whole:
        assert data.has_classes
        states = measured_states(algorithm, data, config, precision, recorder, best)
        return Evaluated([*states])
    return evaluate_settings(
        algorithm, data, config, precision, recorder, title, steps_at_test(config)
    )


def evaluate_settings(
    algorithm: Algorithm,
    data: ClassData | RegressionTasks,
    config: Config,
    precision: Precision,
    recorder: Recorder,
    title: str,
    headline: int | None,
) -> Evaluated:
    """Measure `algorithm` on every setting, the headline at so many steps (None: it takes none)."""
    e, task = config.evaluate, config.task
    evaluated = Evaluated(groups=groups_of(data, config))
    shot_list = [task.shots, *(s for s in dict.fromkeys(e.shots) if s != task.shots)]
    modes = batchnorm_modes(algorithm, e.transductive)
    curve = curve_steps(e.steps, headline)
    steps = None if headline is None else [headline]
    # One adaptation serves all modes; embeddings kept for the inductive one do not.
    together = [[mode] for mode in modes] if headline is None else [modes]
    plan = [(shots, e.tasks, steps, those) for those in together for shots in shot_list]
    plan += [(task.shots, e.curve_tasks, curve, those) for those in together if curve]
    embeddings = supports = None
    metric = isinstance(algorithm, MetricAlgorithm) and embeds_alone(algorithm.backbone)
    if metric and data.has_classes:
        assert isinstance(algorithm, MetricAlgorithm)
        gathered = [setting_of_plan(config, *one) for one in plan if one[3] != ["transductive"]]
        used = images_of(data, gathered)
        embeddings = embed_split(
            algorithm, data, e.part, precision, group=recorder.group, used=used
        )
        supports = embed_supports(
            data,
            gathered,
            embeddings,
            embed_changed(algorithm, data, precision),
            recorder.group,
            recorder.progress.bar,
        )

    def weight(shots: int, steps: list[int] | None, those: list[str | None]) -> float:
        known = embeddings is not None and those != ["transductive"]
        queries = task.queries * len(those)  # they are asked in each mode
        return task_cost(task.ways, shots, queries, steps, embedded=known)

    phases = [(tasks, weight(shots, steps, those)) for shots, tasks, steps, those in plan]
    total, name = sum(tasks for tasks, _ in phases), title.replace("_", " ")
    with recorder.bar("evaluate", total, f"evaluate {name}", phases=phases) as bar:
        for shots, tasks, steps, those in plan:
            evaluated.measurements += evaluate(
                algorithm,
                data,
                setting_of_plan(config, shots, tasks, steps, those),
                precision=precision,
                embeddings=embeddings if those != ["transductive"] else None,
                supports=supports if those != ["transductive"] else None,
                bar=bar,
                group=recorder.group,
            )
    evaluated.measurements.sort(key=lambda m: (m.steps != headline, modes.index(m.batchnorm)))
    return evaluated


def groups_of(data: ClassData | RegressionTasks, config: Config) -> ClassExamples | None:
    """Return the examples of the classes that are evaluated, where figures are by group."""
    wanted = data.has_classes and config.dataset.supports.by_group
    return data.split(config.evaluate.part) if wanted and data.has_classes else None


def fidelity(student: Evaluated, teacher: Evaluated) -> dict[str, float]:
    """Return how alike the two predict on the headline's tasks.

    Top-1 agreement and KL in nats; of regression the mean squared difference.
    """
    s, t = student.headline, teacher.headline
    same = torch.equal(s.classes, t.classes) and torch.equal(s.targets, t.targets)
    assert same, "student and teacher were evaluated on other tasks"
    return fidelity_of(t.logits, s.logits, regression=s.kind == "regression")


def evaluation_stage(split: str) -> str:
    """Return the name of the stream of evaluation tasks.

    Meta-validation is evaluated on other tasks than those that chose the best student.
    """
    return "evaluate" if split == "test" else f"evaluate_{split}"


def paired_gains(
    student: Evaluated,
    alone: Evaluated,
    model: str = "student",
    baseline: str = "student_alone",
) -> list[dict[str, Any]]:
    """Return one model minus another on the same tasks, with 95 % interval, per setting.

    A network that has no batch norm any more has no modes of it: its figure stands beside the
    other's inductive one. Where tasks of either diverged, `diverged` is their share; of errors
    there is no mean then.

    Args:
        student: measured.
        alone: measured on the same tasks.
        model: name of the first.
        baseline: name of the second.
    """
    others = {_like(m, alone): m for m in reversed(alone.measurements)}
    beside = [(mine, others.get(_like(mine, alone))) for mine in student.measurements]
    return [paired_gain(a, b, model, baseline) for a, b in beside if b is not None]


def paired_gain(mine: Measurement, other: Measurement, model: str, baseline: str) -> dict[str, Any]:
    """Return a measurement minus another one on the same tasks; see `paired_gains`."""
    entry = mine.figures()
    measure = "mse" if "mse" in entry else "accuracy"
    for own in (measure, "mse_median", "top5", "loss"):
        entry.pop(own, None)
    if other.batchnorm is not None:
        entry["batchnorm"] = other.batchnorm
    diverged = mine.diverged | other.diverged
    if diverged.any():
        entry["diverged"] = float(diverged.double().mean())
    if measure == "mse" and diverged.any():
        mean = half = math.nan
    else:
        mean, half = paired_difference(mine.values.tolist(), other.values.tolist())
    names = {"model": model, "baseline": baseline, "measure": measure}
    return {**names, **entry, "difference": mean, "ci95": half}


def _like(measured: Measurement, beside: Evaluated) -> tuple[Any, ...]:
    """Return what two measurements share that are on the same tasks."""
    mode = measured.batchnorm or beside.headline.batchnorm
    shots = getattr(measured, "shots", None), len(measured.values)
    return (*shots, measured.steps, mode, getattr(measured, "state", None))
