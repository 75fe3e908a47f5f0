"""`distill=combine`: several losses by weight in one run."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from metakd.distillation.distillation import Distillation, check_weight
from metakd.distillation.objective import Answer, Objective
from metakd.errors import UserError
from metakd.models.network import Prediction

__all__ = ["Combine"]


class Combine(Distillation):
    """L = ce_weight · L_CE + Σ_terms weight · (what that loss teaches, by its own weights).

    The loss on the labels counts once, whatever the terms alone would add. A term is logged under
    its name, before its weight: `loss/dist` is the sum of what `distill=dist` would add to the
    labels. A weight of 0 makes no loss: nothing of it is read, computed or learned.

    Args:
        student_size: unused here; part of every objective's constructor.
        teacher_size: likewise.
        teacher_mean: likewise.
        ce_weight: weight of the loss on the labels.
        terms: by name weight and loss, made by the pipeline.

    Raises:
        UserError: a weight is negative, there is no term with a weight, one is no
            `Distillation`, or all weights are 0 in the end.
    """

    def __init__(
        self,
        student_size: int = 0,
        teacher_size: int = 0,
        teacher_mean: Tensor | None = None,
        *,
        ce_weight: float = 1.0,
        terms: Mapping[str, tuple[float, Objective]] = {},
    ) -> None:
        super().__init__(student_size, teacher_size, teacher_mean)
        self.ce_weight = check_weight("ce_weight", ce_weight)
        used = {
            name: part for name, (weight, part) in terms.items()
            if check_weight(f"terms.{name}", weight)
        }  # fmt: skip
        if not used:
            raise UserError("distill=combine has no terms; type distill.terms.kd=1, for example")
        self._parts: dict[str, Distillation] = {}
        for name, part in used.items():
            if not isinstance(part, Distillation):
                raise UserError(
                    f"distill.terms.{name}: {type(part).__name__} cannot be combined; make it a "
                    "subclass of metakd.distillation.distillation.Distillation"
                )
            self._parts[name] = part
        self.parts = nn.ModuleDict(dict(self._parts))
        self.term_weights = {name: float(terms[name][0]) for name in used}
        if not self.total_weight():
            raise UserError(
                "distill.settings: the terms' own schedules end with all weights at 0, so nothing "
                "would be learnt there; let one of them end above 0, or set distill.ce_weight"
            )
        self.compares_classes = any(p.compares_classes for p in self._parts.values())
        self.compares_supports = any(p.compares_supports for p in self._parts.values())

    @property
    def reads(self) -> frozenset[str]:
        """See `Objective.reads`: what any term reads."""
        return frozenset().union(*(part.reads for part in self._parts.values()))

    @property
    def stages(self) -> tuple[str, ...]:
        """See `Objective.stages`: those of any term."""
        return tuple(dict.fromkeys(s for part in self._parts.values() for s in part.stages))

    @property
    def mean_over_examples(self) -> bool:
        """See `Objective.mean_over_examples`."""
        return all(part.mean_over_examples for part in self._parts.values())

    @property
    def twice_differentiable(self) -> bool:
        """See `Objective.twice_differentiable`."""
        return all(part.twice_differentiable for part in self._parts.values())

    def begin(self, step: int, steps: int, *, whole: bool) -> None:
        """See `Objective.begin`."""
        super().begin(step, steps, whole=whole)
        for part in self._parts.values():
            part.begin(step, steps, whole=whole)

    def advance(self) -> dict[str, float]:
        """See `Objective.advance`; values of a term's own schedules have its name in theirs."""
        found = super().advance()
        for name, part in self._parts.items():
            for key, value in part.advance().items():
                found[f"distill/{name}.{key.removeprefix('distill/')}"] = value
        return found

    def scheduled_values(self) -> dict[str, float]:
        """See `Distillation.scheduled_values`: the weights of the terms, too."""
        terms = {f"terms.{name}": weight for name, weight in self.term_weights.items()}
        return {**super().scheduled_values(), **terms}

    def set_value(self, name: str, value: float) -> None:
        """See `Distillation.set_value`."""
        kind, _, term = name.partition(".")
        if kind == "terms":
            self.term_weights[term] = value
        else:
            super().set_value(name, value)

    def total_weight(self) -> float:
        """See `Distillation.total_weight`; a term counts by what its own schedules end with."""
        terms = self._parts.items()
        return self.ce_weight + sum(
            self.term_weights[name]
            for name, part in terms
            if not part.schedules or part.taught_in_the_end()
        )

    def weight(self, term: str) -> float | None:
        """See `Objective.weight`."""
        return self.weights().get(term)

    def weights(self) -> dict[str, float]:
        """See `Objective.weights`."""
        terms = {
            f"loss/{name}": weight
            for name, weight in self.term_weights.items()
            if f"terms.{name}" not in self.schedules
        }
        return super().weights() | terms

    def taught(
        self, student: Prediction, targets: Tensor, answer: Answer
    ) -> dict[str, tuple[float, Tensor]]:
        """See `Distillation.taught`; a term that says nothing here is left out."""
        weighted = {}
        for name, part in self._parts.items():
            if not self.term_weights[name]:  # by its schedule
                continue
            found = part.taught(student, targets, answer).values()
            if found:
                total = torch.stack([weight * term for weight, term in found]).sum()
                weighted[f"loss/{name}"] = (self.term_weights[name], total)
        return weighted
