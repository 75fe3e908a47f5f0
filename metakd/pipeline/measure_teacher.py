"""What is measured of a teacher: as it adapts to tasks, or else by its embeddings."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from metakd.adaptation.algorithm import Algorithm, MetricAlgorithm
from metakd.adaptation.gradient_learner import GradientLearner
from metakd.config.schema import Config
from metakd.data.class_data import ClassData
from metakd.data.dataset import RegressionTasks
from metakd.distillation.teacher import FrozenTeacher
from metakd.models.network import Network
from metakd.models.normalization import has_batchnorm
from metakd.pipeline.judging import centroid_learner, judged
from metakd.pipeline.measure import (
    Evaluated,
    evaluate_settings,
    groups_of,
    setting_of_plan,
)
from metakd.pipeline.scale import scale_fitted_to
from metakd.pipeline.whole import measured_teacher
from metakd.stages.evaluate import (
    embed_split,
    embed_supports,
    embeds_alone,
    evaluate,
    images_of,
)
from metakd.stages.precision import Precision
from metakd.stages.recorder import Recorder
from metakd.stages.versions import embed_changed

__all__ = ["evaluate_teacher"]


def evaluate_teacher(
    teacher: Network | Algorithm,
    data: ClassData | RegressionTasks,
    config: Config,
    precision: Precision,
    recorder: Recorder,
    scale: float | None = None,
    own: FrozenTeacher | None = None,
    mean: Tensor | None = None,
) -> Evaluated:
    """Measure the teacher on the headline's tasks: as it adapts, or else by its embeddings.

    Args:
        teacher: a network to embed with, where there are classes, or a learner that adapts.
        data: the dataset.
        config: what to measure.
        precision: number format of the stages that may use bfloat16.
        recorder: shows progress.
        scale: what a network's cosines are multiplied by; None: fitted on meta-validation.
        own: embeds for a network with its own view of the examples; None: the network embeds what
            it is given.
        mean: [size], by which a network's embeddings are centred; None: they are not.
    """
    if isinstance(teacher, Network):
        assert data.has_classes
        if config.task.whole:
            return Evaluated([measured_teacher(teacher, data, config, precision, recorder, own)])
        head = judged(centroid_learner(teacher, data), config, mean)
        return _evaluate_embedding(head, data, config, precision, recorder, scale, own)
    steps = teacher.test_steps if isinstance(teacher, GradientLearner) else None
    if steps is not None:
        precision = precision.full()
    return evaluate_settings(teacher, data, config, precision, recorder, "teacher", steps)


def _evaluate_embedding(
    head: MetricAlgorithm,
    data: ClassData,
    config: Config,
    precision: Precision,
    recorder: Recorder,
    scale: float | None,
    own: FrozenTeacher | None,
) -> Evaluated:
    """Measure the teacher as nearest cosine centroid on its embeddings."""
    e, task, backbone = config.evaluate, config.task, head.backbone
    shot_list = [task.shots, *(s for s in dict.fromkeys(e.shots) if s != task.shots)]
    mode = "inductive" if has_batchnorm(backbone) else None
    settings = [setting_of_plan(config, shots, e.tasks, None, mode) for shots in shot_list]
    embeddings = supports = None
    if own is not None:
        embeddings = own.clean(e.part)
    elif embeds_alone(backbone):
        used = images_of(data, settings)
        embeddings = embed_split(head, data, e.part, precision, group=recorder.group, used=used)
    if embeddings is not None:
        changed = embed_changed(head, data, precision) if own is None else own.changed
        supports = embed_supports(
            data, settings, embeddings, changed, recorder.group, recorder.progress.bar
        )
    evaluated = Evaluated(groups=groups_of(data, config))
    with recorder.bar("evaluate", len(shot_list) * e.tasks, "evaluate teacher") as bar:
        for setting in settings:
            evaluated.measurements += evaluate(
                head,
                data,
                setting,
                precision=precision,
                embeddings=embeddings,
                supports=supports,
                bar=bar,
                group=recorder.group,
            )
    if scale is None:
        scale = scale_fitted_to(head, data, config, precision, recorder, own)
    evaluated.scale = scale
    evaluated.measurements = [replace(m, logits=scale * m.logits) for m in evaluated.measurements]
    return evaluated
