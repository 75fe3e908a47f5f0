"""How sharp a model's answers should be, from meta-validation tasks."""

from __future__ import annotations

from dataclasses import replace

from metakd.adaptation.algorithm import Algorithm, MetricAlgorithm
from metakd.config.schema import Config
from metakd.data.class_data import ClassData
from metakd.distillation.calibration import fit_scale
from metakd.distillation.teacher import FrozenTeacher
from metakd.pipeline.measure import validation_setting, versions_of
from metakd.reports.divergence import are_finite
from metakd.stages.evaluate import embed_supports, evaluate
from metakd.stages.precision import Precision
from metakd.stages.recorder import Recorder

__all__ = ["scale_fitted_to"]

CALIBRATION_TASKS = 100
"""Tasks of the meta-validation classes on which a scale is fitted."""


def scale_fitted_to(
    learner: Algorithm,
    data: ClassData,
    config: Config,
    precision: Precision,
    recorder: Recorder,
    own: FrozenTeacher | None = None,
) -> float:
    """Fit by likelihood what a learner's logits are multiplied by (no rank changes).

    Args:
        learner: as it is judged.
        data: the dataset; on its meta-validation classes.
        config: of the run.
        precision: number format of forward passes.
        recorder: of processes that share the tasks.
        own: embeds for a network with its own view of the examples; None: the learner's backbone.
    """
    setting = replace(
        validation_setting(config, learner, CALIBRATION_TASKS),
        stage="calibrate",
        batchnorm="inductive",
        versions=versions_of(config),
    )
    if isinstance(learner, MetricAlgorithm):  # also of a run whose student adapts by steps
        setting = replace(setting, steps=None)
    embeddings = supports = None
    if own is not None:
        embeddings = own.clean(setting.split)
        supports = embed_supports(data, [setting], embeddings, own.changed, recorder.group)
    measured = evaluate(
        learner,
        data,
        setting,
        precision=precision,
        embeddings=embeddings,
        supports=supports,
        group=recorder.group,
    )[0]
    if not are_finite(measured.logits).any():
        return 1.0  # there are no answers, and so nothing to scale
    return fit_scale(measured.logits.flatten(0, 1), measured.targets.flatten())
