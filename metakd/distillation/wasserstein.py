"""`distill=wasserstein`: what it costs to turn one prediction into the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from metakd.distillation.distillation import Distillation, logits_of
from metakd.distillation.divergences import half_l1, widened
from metakd.distillation.kd import check_temperature
from metakd.distillation.objective import Answer, Needs, defaults_of
from metakd.distillation.optimal_transport import prototype_cost, scaled_divergence
from metakd.errors import UserError, check_word
from metakd.models.network import Prediction

__all__ = ["COSTS", "Wasserstein"]

COSTS = ("zero_one", "teacher")

_SMALLEST_EPSILON = 0.05
"""Below it a hundred of Sinkhorn's iterations are too few, and float32 too narrow."""


class Wasserstein(Distillation):
    """L = ce_weight · L_CE + wasserstein_weight · mean(W(p_t, p_s)).

    p are the predictions at temperature τ. With the cost `zero_one` W is half their L1 distance.
    With `teacher`, confusing two classes is the cheaper the nearer they are to the teacher: the
    cost is the squared distance of its prototypes of the task's classes, in whole batches of the
    rows of its head, over the mean of all pairs; W is the Sinkhorn divergence S_ε (method.md
    section 3). That one has no second derivatives. Classes only.

    Terms `loss/ce`, `loss/wasserstein` (before their weights).

    Args:
        student_size: unused here; part of every objective's constructor.
        teacher_size: likewise.
        teacher_mean: likewise.
        ce_weight: weight of the loss on the labels.
        temperature: τ.
        wasserstein_weight: weight of the distance.
        cost: `zero_one` or `teacher`.
        epsilon: ε, weight of the entropy with the cost `teacher`, whose mean is 1.
        iterations: of Sinkhorn's, with the cost `teacher`; each takes 6 n C² multiplications for
            n examples and C classes.

    Raises:
        UserError: a weight is negative, both are 0, the temperature is not positive, ε is below
            0.05, there is no iteration, or there is no such cost.
    """

    needs: ClassVar[Needs] = {"logits": ("wasserstein_weight",)}
    wasserstein_weight: float

    def __init__(
        self,
        student_size: int = 0,
        teacher_size: int = 0,
        teacher_mean: Tensor | None = None,
        *,
        ce_weight: float = 1.0,
        temperature: float = 1.0,
        wasserstein_weight: float = 4.0,
        cost: str = "zero_one",
        epsilon: float = 0.1,
        iterations: int = 50,
    ) -> None:
        super().__init__(student_size, teacher_size, teacher_mean)
        self.weigh("wasserstein", ce_weight, wasserstein_weight=wasserstein_weight)
        self.temperature = check_temperature(temperature)
        check_word("distill.options.cost", cost, COSTS)
        if not epsilon >= _SMALLEST_EPSILON:
            raise UserError(
                f"distill.options.epsilon={epsilon:g}: must be {_SMALLEST_EPSILON:g} or more"
            )
        if not iterations >= 1:
            raise UserError(f"distill.options.iterations={iterations}: must be 1 or more; try 50")
        self.cost, self.epsilon, self.iterations = cost, epsilon, iterations

    @classmethod
    def needed(cls, settings: Mapping[str, Any]) -> frozenset[str]:
        """See `Objective.needed`."""
        found = super().needed(settings)
        costly = {**defaults_of(cls), **settings}["cost"] != "zero_one"
        return found | {"prototypes"} if found and costly else found

    @classmethod
    def idle(cls, settings: Mapping[str, Any], *, whole: bool) -> Mapping[str, str]:
        """See `Objective.idle`."""
        cost = {**defaults_of(cls), **settings}["cost"]
        if cost != "zero_one":
            return {}
        return dict.fromkeys(("epsilon", "iterations"), "it is of cost=teacher")

    @property
    def twice_differentiable(self) -> bool:
        """See `Objective`: transport is differentiated at fixed potentials."""
        return self.cost == "zero_one" or not self.wasserstein_weight

    def taught(
        self, student: Prediction, targets: Tensor, answer: Answer
    ) -> dict[str, tuple[float, Tensor]]:
        """See `Distillation.taught`."""
        if not self.wasserstein_weight:
            return {}
        theirs = logits_of(answer, student, "wasserstein")
        if self.cost == "zero_one":
            each = half_l1(theirs, student.logits, self.temperature)
        else:
            cost = prototype_cost(answer.features["prototypes"])
            p, q = ((widened(z) / self.temperature).softmax(-1) for z in (theirs, student.logits))
            each = scaled_divergence(p, q, cost, epsilon=self.epsilon, iterations=self.iterations)
        return {"loss/wasserstein": (self.wasserstein_weight, each.mean())}
