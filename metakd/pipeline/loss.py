"""The student's loss: its class, what it reads of the teacher, the objective itself."""

from __future__ import annotations

import torch
from torch import Tensor

from metakd.config.needs import check_needs, declared_needs
from metakd.config.schema import Config
from metakd.distillation.objective import Objective
from metakd.errors import UserError
from metakd.pipeline.construction import settings_of
from metakd.registry import build, resolve

__all__ = ["build_objective", "needs_of_loss"]


def needs_of_loss(config: Config) -> frozenset[str]:
    """Return what the loss reads of the teacher's answer, as its class says.

    Raises:
        UserError: its file under conf/ says otherwise, or the teacher cannot answer that.
    """
    distill = config.distill
    cls = _class_of(config)
    needs = cls.needed({**settings_of(distill), **distill.options})
    declared = declared_needs(distill)
    if declared is not None and declared != needs:
        raise UserError(
            f"distill={distill.name}: its file says needs: {_shown(declared)}, and its class "
            f"{cls.__name__} reads {_shown(needs)} with these settings; correct the file, or leave "
            "needs out of it"
        )
    check_needs(config, needs)
    return needs


def build_objective(
    config: Config, student_size: int, teacher_size: int, teacher_mean: Tensor
) -> Objective:
    """Return the config's loss for embeddings of these sizes.

    Args:
        config: the run's.
        student_size: size of the student's embeddings.
        teacher_size: size of the teacher's.
        teacher_mean: its mean embedding over meta-train images [teacher_size].

    Raises:
        UserError: a setting that the class refuses; it reads what its class does not say.
    """
    distill = config.distill
    cls = _class_of(config)
    torch.manual_seed(config.seed)  # for a learned projection
    objective: Objective = build(
        cls,
        student_size,
        teacher_size,
        teacher_mean,
        settings=settings_of(distill),
        options=distill.options,
    )
    needs = cls.needed({**settings_of(distill), **distill.options})
    if objective.reads != needs:
        raise UserError(
            f"distill={distill.name}: class {cls.__name__} says needs: {_shown(needs)}, and one "
            f"with these settings reads {_shown(objective.reads)}; name in the class the weights "
            "that switch each on, like needs = {'logits': ('kd_weight',)}"
        )
    return objective


def _class_of(config: Config) -> type[Objective]:
    cls = resolve(config.distill._target_, "metakd.distillation", config.plugins)
    if not issubclass(cls, Objective):
        raise UserError(
            f"distill={config.distill.name}: {config.distill._target_} is no loss; make it a "
            "subclass of metakd.distillation.objective.Objective"
        )
    return cls


def _shown(needs: frozenset[str]) -> str:
    return f"[{', '.join(sorted(needs))}]"
