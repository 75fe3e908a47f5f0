"""The teacher of a regression family: it has no base classes, so it is meta-trained on tasks."""

from __future__ import annotations

from dataclasses import replace

from metakd.adaptation.gradient_learner import GradientLearner
from metakd.config.schema import Config
from metakd.distillation.objective import Objective
from metakd.models.network import Network
from metakd.pipeline.construction import optimization_of
from metakd.pipeline.measure import chosen_by, validation_setting
from metakd.pipeline.prepared import Prepared
from metakd.pipeline.teaching import adapting_teacher
from metakd.stages.fit import Fitted, StageContext, fit
from metakd.stages.recorder import Recorder

__all__ = ["meta_pretrain", "teacher_updates"]


def teacher_updates(config: Config) -> int:
    """Return of how many meta-iterations the teacher's training consists."""
    given = config.pretrain.updates
    return config.meta_train.iterations if given is None else given


def meta_pretrain(prepared: Prepared, network: Network, recorder: Recorder) -> Fitted:
    """Meta-train `network` in place on labels, as it will adapt to tasks (method.md section 4).

    Its tasks are those of meta-training's sizes, drawn by `teacher.seed`; the best state on
    meta-validation is kept.

    Args:
        prepared: the run.
        network: the untrained teacher.
        recorder: where metrics and checkpoints go.
    """
    config, data = prepared.config, prepared.data
    stage, task, seed = config.pretrain, config.task, config.teacher.seed or 0
    learner = adapting_teacher(prepared, network.backbone, network.head)
    assert isinstance(learner, GradientLearner)
    precision = prepared.precision.full()  # it adapts by gradient
    setting = validation_setting(config, learner, config.meta_train.validate_tasks)
    setting = replace(setting, steps=[learner.test_steps])
    stream = data.tasks(
        "train", task.training(), tasks=task.meta_batch, seed=seed, stage="pretrain"
    )
    return fit(
        learner,
        Objective(),
        stream.batch,
        StageContext("pretrain", recorder, precision, optimization_of(stage), seed),
        steps=teacher_updates(config),
        validation=chosen_by(
            learner, data, setting, config.meta_train.validate_every, precision, recorder
        ),
        learner_is="teacher",
    )
