"""The student's loss: its class, what it reads of the teacher, the objective itself."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from metakd.config.needs import check_needs, declared_needs
from metakd.config.schema import Config
from metakd.distillation.objective import FeatureShapes, Objective, stages_among
from metakd.errors import UserError
from metakd.models.features import feature_shapes
from metakd.models.network import Network
from metakd.pipeline.construction import settings_of
from metakd.registry import build, resolve, settings_used

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
    if cls.compares_supports:
        _check_supports(config)
    return needs


def build_objective(
    config: Config,
    student: nn.Module,
    teacher: Network,
    teacher_mean: Tensor,
    example_shape: tuple[int, ...],
) -> Objective:
    """Return the config's loss for these two networks.

    Args:
        config: the run's.
        student: the student's backbone.
        teacher: the teacher.
        teacher_mean: its mean embedding over meta-train images [size].
        example_shape: of an example, as both are given it.

    Raises:
        UserError: a setting that the class refuses, an unknown stage, `needs` that an instance
            sets.
    """
    distill = config.distill
    cls = _class_of(config)
    settings = {**settings_of(distill), **distill.options}
    given: dict[str, Any] = {}
    if "shapes" in settings_used(cls):
        stages = stages_among(cls.needed(settings))
        given["shapes"] = FeatureShapes(
            feature_shapes(student, cls.stages_needed(settings), example_shape, "the student"),
            feature_shapes(teacher.backbone, stages, example_shape, "the teacher"),
        )
    torch.manual_seed(config.seed)  # for a learned projection
    objective: Objective = build(
        cls,
        int(student.embedding_size),  # type: ignore[arg-type]
        teacher.head.in_features,
        teacher_mean,
        settings={**settings_of(distill), **given},
        options=distill.options,
    )
    _check_derivatives(config, objective)
    if "needs" in vars(objective):
        raise UserError(
            f"distill={distill.name}: {cls.__name__} sets needs in its constructor; say it in the "
            "class, with the weights that switch each on: needs = {'logits': ('kd_weight',)}"
        )
    return objective


def _check_supports(config: Config) -> None:
    """Refuse a loss on support embeddings where the student has none of a task.

    Raises:
        UserError: the algorithm adapts by gradient, or trains on whole batches.
    """
    supports = config.algorithm.supports
    if supports.adapts or supports.trains_on != "episodes":
        raise UserError(
            f"distill={config.distill.name} compares queries with support embeddings, which "
            f"algorithm={config.algorithm.name} does not; type algorithm=protonet, or another "
            "learner that embeds and compares, or distill=embedding"
        )


def _check_derivatives(config: Config, objective: Objective) -> None:
    """Refuse a loss without second derivatives in an inner loop that needs them.

    Raises:
        UserError: with what to type.
    """
    distill, algorithm = config.distill, config.algorithm
    inside = algorithm.supports.adapts and distill.on != "query"
    if inside and not algorithm.first_order and not objective.twice_differentiable:
        raise UserError(
            f"distill={distill.name} has no second derivatives with these settings, and "
            f"distill.on={distill.on} with algorithm={algorithm.name} needs them; type "
            "distill.on=query, algorithm.first_order=true, or distill=kd"
        )


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
