"""`fit` on a few points of a new function, `predict` its values elsewhere."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from metakd.errors import UserError
from metakd.using.inputs import numbers_of
from metakd.using.learner import Learner

__all__ = ["FewShotRegressor"]


class FewShotRegressor(Learner):
    """A trained student that learns a function from a few values; `metakd.load` makes one."""

    _flat = False

    def fit(self, inputs: Any, targets: Any) -> Self:
        """Learn a function from points; what was learned before is forgotten.

        Args:
            inputs: [n, d] numbers, or [n] where d is 1.
            targets: [n, outputs], or [n] where there is one output; `predict` answers alike.

        Raises:
            UserError: other shapes, or a number that is not finite.
        """
        return self._learn(self._examples(inputs), self._targets(targets), np.ndim(targets) == 1)

    def partial_fit(self, inputs: Any, targets: Any) -> Self:
        """Learn more points; the result is that of one `fit` on all of them.

        Raises:
            UserError: as `fit`; or what was shown before was not saved along.
        """
        if self._shown is None:
            return self.fit(inputs, targets)
        if self._shown.examples is None:
            raise UserError(
                "partial_fit: this learner was saved without its examples (examples=False), and "
                "needs them to learn more; call fit with all of them"
            )
        points = torch.cat([self._shown.examples, self._examples(inputs)])
        values = torch.cat([self._shown.labels, self._targets(targets)])
        return self._learn(points, values, self._flat)

    def _targets(self, targets: Any) -> Tensor:
        return numbers_of(targets, (self.trained.recipe.outputs,), "targets")

    def _learn(self, points: Tensor, values: Tensor, flat: bool) -> Self:
        if len(points) != len(values):
            raise UserError(f"targets: {len(values)} for {len(points)} inputs; give one for each")
        if not len(points):
            raise UserError("fit: there is no example to learn from")
        self._shown = self._adapt(points, values, 1, values)
        self._flat = flat
        return self

    def predict(self, inputs: Any) -> np.ndarray:
        """Return values [n, outputs], or [n] if `fit` was given such targets."""
        found = self._outputs(inputs).numpy()
        return found[:, 0] if self._flat else found

    def score(self, inputs: Any, targets: Any) -> float:
        """Return R², 1 - Σ(y - ŷ)² / Σ(y - mean y)², as scikit-learn's regressors do.

        Raises:
            UserError: another number of targets than of inputs, or `predict`'s reasons.
        """
        values = self._targets(targets).numpy().astype(np.float64)
        found = self._outputs(inputs).numpy()
        if len(found) != len(values):
            raise UserError(f"targets: {len(values)} for {len(found)} inputs; give one for each")
        spread = ((values - values.mean(0)) ** 2).sum(0)
        missed = ((values - found) ** 2).sum(0)
        return float(np.mean(1.0 - missed / np.where(spread > 0, spread, np.nan)))
