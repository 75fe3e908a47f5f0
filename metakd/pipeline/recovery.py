"""Who teaches a student that was made smaller, and by which losses."""

from __future__ import annotations

import copy
from dataclasses import fields, replace

import torch

from metakd.adaptation.algorithm import Algorithm
from metakd.config.compose import choice_alone
from metakd.config.schema import LEARNED_MODES, Config, MetaTrainConfig, OptimizerConfig
from metakd.data.counter_random import stream_key
from metakd.distillation.objective import Objective
from metakd.distillation.teacher import FrozenTeacher
from metakd.models.ensemble import Ensemble, fuse
from metakd.models.network import Network
from metakd.pipeline.compression_plan import who_teaches
from metakd.pipeline.generations import as_teacher
from metakd.pipeline.learners import Student, Taught, frozen_teacher
from metakd.pipeline.loss import needs_of_loss
from metakd.pipeline.prepared import Prepared
from metakd.stages.recorder import Recorder

__all__ = ["recovery_of"]


def recovery_of(
    prepared: Prepared,
    recorder: Recorder,
    student: Student,
    taught: Taught | None,
    smaller: Algorithm,
) -> tuple[Prepared, FrozenTeacher | None, Objective, str]:
    """Return the run as recovery sees it, the teacher, the loss, and both in words.

    Args:
        prepared: the run.
        recorder: of it.
        student: as it was.
        taught: the run's teacher, if it has one.
        smaller: what is trained.

    Raises:
        UserError: `compress.teacher` names one that cannot teach here.
    """
    helps = taught is not None and taught.frozen is not None
    who = who_teaches(prepared, student.algorithm, helps)
    has_head = who == "teacher" or student.algorithm.whole_network() is not None
    config = _settings(prepared.config, distils=who != "none", has_head=has_head)
    own = replace(prepared, config=config, student=smaller.backbone)
    if who == "none":
        return own, None, Objective().to(prepared.device), "on labels alone"
    own = replace(own, needs=needs_of_loss(config))
    if who == "teacher":
        assert taught is not None
        assert taught.frozen is not None
        network, frozen = taught.network, taught.frozen
    else:
        own = replace(own, teacher_input=None)
        network = as_teacher(prepared, student.algorithm)
        if who == "both":
            assert taught is not None
            network = _together(prepared, taught.network, network)
        frozen = frozen_teacher(own, network, recorder)
    objective = own.objective(network, frozen.mean)
    named = {"student": "the student as it was", "teacher": "the teacher", "both": "both"}
    return own, frozen, objective, f"taught by {named[who]}, distill={config.distill.name}"


def _settings(config: Config, *, distils: bool, has_head: bool) -> Config:
    """Return the config with `compress` in the place of `meta_train`.

    Args:
        config: the run's.
        distils: somebody teaches.
        has_head: who teaches has outputs for the meta-train classes.
    """
    how = config.compress
    shared = {f.name: getattr(how, f.name) for f in fields(OptimizerConfig)}
    stage = MetaTrainConfig(
        **shared,
        name="compress",
        iterations=how.iterations,
        validate_every=how.validate_every,
        validate_tasks=how.validate_tasks,
        batch_size=config.meta_train.batch_size,
        draw=config.meta_train.draw,
    )
    distill = config.distill
    if distils and not distill.supports.uses_teacher:
        distill = choice_alone("distill", "embedding")
        distill.on = "query"
    if distill.teacher_mode in ("auto", *LEARNED_MODES):
        mode = "head" if config.algorithm.supports.trains_on == "batches" else "prototype"
        distill = replace(distill, teacher_mode=mode)
    if distill.teacher_mode == "head" and not has_head:
        distill = replace(distill, teacher_mode="prototype")
    distill = replace(distill, learned=[])
    seed = stream_key(config.seed, "compress")  # other tasks than those that it was trained on
    return replace(config, meta_train=stage, distill=distill, seed=seed)


def _together(prepared: Prepared, teacher: Network, student: Network) -> Network:
    """Return two networks as one teacher: embeddings side by side, logits averaged."""
    data = prepared.class_data
    members = [copy.deepcopy(teacher.backbone), copy.deepcopy(student.backbone)]
    network = Network(Ensemble(members), student.head.out_features).to(prepared.device)
    kept = (~data.filled("train").held_out).nonzero().flatten()
    shown = data.examples("train", kept[:: max(1, len(kept) // 512)])
    with torch.no_grad():
        embedded = [m.eval()(shown) for m in members]
        fuse(network, [teacher.head, student.head], embedded)
    return network.eval()
