"""The student's loss: its class, what it reads of the teacher, the objective itself."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from metakd.config.needs import check_needs, declared_needs
from metakd.config.schema import Config, DistillConfig
from metakd.config.terms import term_of
from metakd.distillation.distillation import Distillation
from metakd.distillation.objective import FeatureShapes, Objective, stages_among
from metakd.errors import UserError, nearest
from metakd.models.features import feature_shapes
from metakd.models.network import Network
from metakd.option_types import check_types
from metakd.pipeline.construction import settings_of
from metakd.registry import build, resolve, settings_used

__all__ = ["build_objective", "idle_options", "needs_of_loss"]


@dataclass(frozen=True)
class Loss:
    """A loss that takes part: the one that is chosen, or a term of `distill=combine`.

    Attributes:
        distill: its settings.
        cls: its class.
    """

    distill: DistillConfig
    cls: type[Objective]

    @property
    def settings(self) -> dict[str, Any]:
        """All settings by name, options among them."""
        return {**settings_of(self.distill), **self.distill.options}

    @property
    def needs(self) -> frozenset[str]:
        """What it reads of the teacher's answer.

        Raises:
            UserError: its file under conf/ says otherwise, or its class says nothing.
        """
        cls = self.cls
        said = cls.needs or cls.needed.__func__ is not Objective.needed.__func__  # type: ignore[attr-defined]
        if isinstance(cls.needs, str) or (self.distill.supports.uses_teacher and not said):
            raise UserError(
                f"distill={self.distill.name}: {cls.__name__} has to name what it reads of the "
                'teacher, as in needs = ("logits",); a loss without a teacher says '
                "supports: {uses_teacher: false} in its file"
            )
        needs = cls.needed(self.settings)
        declared = declared_needs(self.distill)
        if declared is not None and declared != needs:
            raise UserError(
                f"distill={self.distill.name}: its file says needs: {_shown(declared)}, and its "
                f"class {cls.__name__} reads {_shown(needs)} with these settings; correct "
                "the file, or leave needs out of it"
            )
        return needs


def needs_of_loss(config: Config) -> frozenset[str]:
    """Return what the loss reads of the teacher's answer, as its class (its terms) says.

    Raises:
        UserError: its file under conf/ says otherwise, or the teacher cannot answer that.
    """
    losses = _losses(config)
    needs: frozenset[str] = frozenset().union(*(loss.needs for loss in losses))
    check_needs(config, needs)
    if any(loss.cls.compares_supports for loss in losses):
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
    sizes = int(student.embedding_size), teacher.head.in_features  # type: ignore[arg-type]

    def built(loss: Loss, **given: Any) -> Objective:
        if "shapes" in settings_used(loss.cls):
            stages = loss.cls.stages_needed(loss.settings)
            of_teacher = stages_among(loss.cls.needed(loss.settings))
            given["shapes"] = FeatureShapes(
                feature_shapes(student, stages, example_shape, "the student"),
                feature_shapes(teacher.backbone, of_teacher, example_shape, "the teacher"),
            )
        torch.manual_seed(config.seed)  # for what is learned in it
        objective: Objective = build(
            loss.cls,
            *sizes,
            teacher_mean,
            settings={**settings_of(loss.distill), **given},
            options=loss.distill.options,
        )
        if "needs" in vars(objective):
            raise UserError(
                f"distill={loss.distill.name}: {loss.cls.__name__} sets needs in its constructor; "
                "say it in the class, with the weights that switch each on: "
                "needs = {'logits': ('kd_weight',)}"
            )
        if loss.distill.schedules:
            if not isinstance(objective, Distillation):
                raise UserError(
                    f"distill.schedules: distill={loss.distill.name} cannot follow any; type "
                    "distill=kd, or make the class a subclass of Distillation"
                )
            term = config.distill.supports.combines and not loss.distill.supports.combines
            place = f"distill.settings.{loss.distill.name}" if term else "distill"
            objective.follow(_flat(loss.distill.schedules), f"{place}.schedules")
        return objective

    losses = _losses(config)
    if config.distill.supports.combines:
        weights: Mapping[str, float] = config.distill.terms
        terms = {loss.distill.name: (weights[loss.distill.name], built(loss)) for loss in losses}
        objective = built(Loss(config.distill, _class_of(config, config.distill)), terms=terms)
    else:
        objective = built(losses[0])
    _check_derivatives(config, objective)
    return objective


def idle_options(config: Config, typed: Collection[str]) -> list[str]:
    """Return a line for each typed setting of the loss that changes nothing beside the others.

    Args:
        config: of the run.
        typed: what was typed, by dotted name.
    """
    distill, algorithm, finetune = config.distill, config.algorithm, config.finetune
    if not distill.supports.uses_teacher:
        return []
    losses, tuned = _losses(config), finetune.enabled and finetune.distill
    warm = config.warmstart.enabled and config.warmstart.epochs > 0
    whole = warm or tuned or algorithm.supports.trains_on == "batches"
    found = {}
    for loss in losses:
        term = distill.supports.combines and f"distill.settings.{loss.distill.name}"
        for name, why in loss.cls.idle(loss.settings, whole=whole).items():
            found[f"{term or 'distill.options'}.{name}"] = why
    if tuned and all(loss.cls.compares_supports for loss in losses):
        found["finetune.distill"] = "the loss compares queries with support sets"
    return [f"{key} changes nothing: {found[key]}" for key in sorted({*typed} & found.keys())]


def _losses(config: Config) -> list[Loss]:
    """Return the losses that take part.

    Raises:
        UserError: a term that cannot be combined, or a setting that its class does not take.
    """
    distill = config.distill
    if not distill.supports.combines:
        return [Loss(distill, _class_of(config, distill))]
    found = []
    for name, weight in distill.terms.items():
        if not weight:
            continue
        loss = Loss(part := term_of(distill, name), _class_of(config, part))
        used = settings_used(loss.cls)
        if "ce_weight" not in used:
            raise UserError(
                f"distill.terms.{name}: its weight of the labels is no setting, so it cannot be "
                "combined; type distill.terms.kd and distill.ce_weight, for example"
            )
        for key in distill.settings.get(name) or ():
            if key not in used and key != "schedules":
                raise UserError(
                    f"distill.settings.{name}.{key}: distill={name} does not use it."
                    + nearest(str(key), used)
                )
        check_types(loss.cls, part.options, f"distill.settings.{name}")
        found.append(loss)
    return found


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


def _class_of(config: Config, distill: DistillConfig) -> type[Objective]:
    cls = resolve(distill._target_, "metakd.distillation", config.plugins)
    if not issubclass(cls, Objective):
        raise UserError(
            f"distill={distill.name}: {distill._target_} is no loss; make it a "
            "subclass of metakd.distillation.objective.Objective"
        )
    return cls


def _flat(schedules: Mapping[str, Any]) -> dict[str, Any]:
    """Return schedules by name, those of `terms` as `terms.NAME`."""
    terms = schedules.get("terms", {})
    own = {name: typed for name, typed in schedules.items() if name != "terms"}
    return own | {f"terms.{name}": typed for name, typed in terms.items()}


def _shown(needs: frozenset[str]) -> str:
    return f"[{', '.join(sorted(needs))}]"
