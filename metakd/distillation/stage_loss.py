"""What the losses share that compare intermediate features: pairs of stages, checked shapes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from metakd.distillation.distillation import Distillation
from metakd.distillation.divergences import widened
from metakd.distillation.objective import Answer, FeatureShapes, defaults_of
from metakd.errors import UserError
from metakd.models.network import Prediction

__all__ = ["StageLoss", "StagePairs", "averaged_to", "channels_of", "same_size"]


@dataclass(frozen=True)
class StagePairs:
    """Stages whose features are compared.

    Attributes:
        student_stages: of the student, or paths of its submodules (`0` may come as a number).
        teacher_stages: as many of the teacher, each the pattern of the student's.

    Raises:
        UserError: their numbers differ, or there are none.
    """

    student_stages: Sequence[str] = ("stage2", "stage3")
    teacher_stages: Sequence[str] = ("stage2", "stage3")

    def __post_init__(self) -> None:
        if len(self.student_stages) != len(self.teacher_stages) or not self.student_stages:
            raise UserError(
                f"distill.options: {len(self.student_stages)} student_stages and "
                f"{len(self.teacher_stages)} teacher_stages: give as many of both, in pairs"
            )
        for name in ("student_stages", "teacher_stages"):
            object.__setattr__(self, name, tuple(map(str, getattr(self, name))))


def averaged_to(features: Tensor, size: Sequence[int]) -> Tensor:
    """Return maps [..., channels, height, width] averaged to [..., channels, *size].

    The cells are those of adaptive average pooling. By two matrix products: these have batching
    rules for second derivatives, which pooling does not.
    """
    for dim, cells in ((-2, size[0]), (-1, size[1])):
        pixels = features.shape[dim]
        if pixels != cells:
            starts = torch.arange(cells, device=features.device) * pixels // cells
            ends = -(-torch.arange(1, cells + 1, device=features.device) * pixels // cells)
            at = torch.arange(pixels, device=features.device)
            inside = (at >= starts[:, None]) & (at < ends[:, None])
            shares = inside.to(features.dtype) / (ends - starts)[:, None]
            features = (features.movedim(dim, -1) @ shares.T).movedim(-1, dim)
    return features


def channels_of(shape: Sequence[int]) -> int:
    """Return the channels of features [channels, height, width], [tokens, channels], [channels]."""
    return shape[0] if len(shape) == 3 else shape[-1]


def same_size(student: Tensor, teacher: Tensor, dimensions: int) -> tuple[Tensor, Tensor]:
    """Return both features with their channels last, maps averaged to the smaller one's size.

    Args:
        student: [..., *shape].
        teacher: likewise.
        dimensions: of the shape: 3 for maps [channels, height, width], 2 for [tokens, channels].
    """
    if dimensions != 3:
        return student, teacher
    size = [min(a, b) for a, b in zip(student.shape[-2:], teacher.shape[-2:], strict=True)]
    return averaged_to(student, size).movedim(-3, -1), averaged_to(teacher, size).movedim(-3, -1)


class StageLoss(Distillation):
    """A loss with a term that compares pairs of stages.

    A subclass names the weight of that term and sets `pairs`.

    Attributes:
        pairs: of stages that are compared.
    """

    stage_weight: ClassVar[str]
    """Name of the weight that switches the comparison on."""
    pairs: StagePairs

    @classmethod
    def needed(cls, settings: Mapping[str, Any]) -> frozenset[str]:
        """See `Objective.needed`: the teacher's stages, beside what `needs` says."""
        return super().needed(settings) | frozenset(cls._stages(settings, "teacher_stages"))

    @classmethod
    def stages_needed(cls, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """See `Objective.stages_needed`."""
        return cls._stages(settings, "student_stages")

    @classmethod
    def idle(cls, settings: Mapping[str, Any], *, whole: bool) -> Mapping[str, str]:
        """See `Objective.idle`."""
        if {**defaults_of(cls), **settings}[cls.stage_weight]:
            return {}
        return dict.fromkeys(("student_stages", "teacher_stages"), f"{cls.stage_weight} is 0")

    @classmethod
    def _stages(cls, settings: Mapping[str, Any], whose: str) -> tuple[str, ...]:
        values = {**defaults_of(cls), **settings}
        if not values[cls.stage_weight]:
            return ()
        return tuple(map(str, settings.get(whose, getattr(values["pairs"], whose))))

    def features_of(self, student: Prediction, answer: Answer) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the student's and the teacher's features of each pair, in float32 or wider."""
        for s, t in zip(self.pairs.student_stages, self.pairs.teacher_stages, strict=True):
            yield widened(student.features[s]), widened(answer.features[t])

    def paired(
        self, shapes: FeatureShapes | None, *, maps: bool = False
    ) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """Return the shapes of each pair's features; none where they are not compared.

        Args:
            shapes: of the stages.
            maps: whether they have to be maps of two pixels or more.

        Raises:
            UserError: a stage gives no map where one is needed, or a pair has no common kind.
            ValueError: `shapes` is None, though connectors are made for them.
        """
        if not getattr(self, self.stage_weight):
            return []
        if shapes is None:
            raise ValueError(f"{type(self).__name__} makes connectors and needs `shapes`")
        found = []
        for s, t in zip(self.pairs.student_stages, self.pairs.teacher_stages, strict=True):
            ours, theirs = shapes.student[s], shapes.teacher[t]
            for whose, stage, shape in (("student", s, ours), ("teacher", t, theirs)):
                if maps and (len(shape) != 3 or math.prod(shape[1:]) < 2):
                    raise UserError(
                        f"distill.options.{whose}_stages: '{stage}' gives features of shape "
                        f"{list(shape)}, no map [channels, height, width] of 2 pixels or more; "
                        "name an earlier stage"
                    )
            alike = len(ours) == len(theirs) <= 3
            if not alike or (len(ours) == 2 and ours[0] != theirs[0]):
                raise UserError(
                    f"distill.options: student_stages '{s}' gives features of shape {list(ours)}, "
                    f"teacher_stages '{t}' of {list(theirs)}; pair maps with maps, vectors with "
                    "vectors, as many tokens with as many"
                )
            found.append((ours, theirs))
        return found
