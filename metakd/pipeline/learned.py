"""Values of the loss that meta-training learns: which, how, and what became of them."""

from __future__ import annotations

import copy

import torch

from metakd.adaptation.algorithm import Algorithm
from metakd.adaptation.embedding_learner import EmbeddingLearner
from metakd.config.schema import LEARNED_MODES, Config
from metakd.distillation.distillation import Distillation
from metakd.distillation.objective import Objective
from metakd.errors import UserError
from metakd.pipeline.prepared import Prepared
from metakd.stages.learned_weights import LearnedValues, LearnsWeights

__all__ = ["check_learned", "found_values", "weighing"]


def check_learned(prepared: Prepared) -> None:
    """Refuse values that cannot be learned.

    Raises:
        UserError: naming the setting.
    """
    config, teacher = prepared.config, prepared.teacher
    if not config.distill.learned or teacher is None or not config.distill.supports.uses_teacher:
        return
    learner = prepared.algorithm(copy.deepcopy(prepared.student))
    if not isinstance(learner, EmbeddingLearner):
        raise UserError(
            f"distill.learned: algorithm={config.algorithm.name} adapts by gradient or is no "
            "classifier of embeddings, and its weights cannot be learned; type "
            "distill.learned=[], or algorithm=protonet"
        )
    if config.distill.teacher_mode in LEARNED_MODES:
        raise UserError(
            "distill.learned: beside a teacher that adapts or learns weights stay as they are; "
            "type distill.learned=[]"
        )
    least = config.task.meta_batch if config.algorithm.supports.trains_on == "episodes" else 2
    if least < 2:
        raise UserError(
            "distill.learned: a batch is halved, and task.meta_batch=1 has one task; type "
            "task.meta_batch=2 or more"
        )
    if config.meta_train.mixup and config.algorithm.supports.trains_on == "batches":
        raise UserError(
            "distill.learned: half a batch is held out, and with meta_train.mixup="
            f"{config.meta_train.mixup:g} its examples are mixed into the other half; type "
            "meta_train.mixup=0, or meta_train.manifold_mixup, which mixes within a half"
        )
    size = teacher.head.in_features
    weighing(config, learner, prepared.objective(teacher, torch.zeros(size)))


def weighing(config: Config, learner: Algorithm, objective: Objective) -> Algorithm:
    """Return what trains the learner while values of its loss are learned, if that is asked for.

    Raises:
        UserError: the loss has no such value.
    """
    distill = config.distill
    if not distill.learned:
        return learner
    if not isinstance(objective, Distillation):
        raise UserError(
            f"distill.learned: distill={distill.name} has no values that can be learned; type "
            "distill=kd, or make the class a subclass of Distillation"
        )
    assert isinstance(learner, EmbeddingLearner)
    learned = LearnedValues(
        tuple(dict.fromkeys(distill.learned)),
        every=distill.learned_every,
        rate=distill.learned_lr,
        span=distill.learned_span,
        trial_lr=distill.trial_lr,
        most=dict(distill.supports.at_most),
    )
    device = next(learner.parameters()).device
    return LearnsWeights(learner, objective, learned).to(device)


def found_values(learner: LearnsWeights) -> str:
    """Return the values that were found, as a line of YAML."""
    plain: dict[str, object] = {}
    for name, value in learner.found().items():
        kind, _, rest = name.partition(".")
        if rest:
            plain.setdefault(kind, {})[rest] = value  # type: ignore[index]
        else:
            plain[name] = value
    return f"distill: {_flow(plain)}  # learned"


def _flow(values: dict[str, object]) -> str:
    parts = (
        f"{name}: {_flow(value) if isinstance(value, dict) else f'{value:.4g}'}"
        for name, value in values.items()
    )
    return "{" + ", ".join(parts) + "}"
