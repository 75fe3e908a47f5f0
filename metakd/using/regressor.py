"""`fit` on a few points of a new function, `predict` its values elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from metakd.errors import UserError
from metakd.using.inputs import numbers_of
from metakd.using.learner import Learner, Shown

__all__ = ["FewShotRegressor"]

_TARGETS = "targets"
"""Of the tensors of a saved learner."""


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
        self._learn(self._remembered(self._examples(inputs)), self._targets(targets))
        self._flat = np.ndim(targets) == 1
        return self

    def partial_fit(self, inputs: Any, targets: Any) -> Self:
        """Learn more points; the result is that of one `fit` on all of them.

        Raises:
            UserError: as `fit`; or what was shown before was not saved along.
        """
        if self._shown is None:
            return self.fit(inputs, targets)
        values = torch.cat([self._shown.labels, self._targets(targets)])
        return self._learn(self._with_more(self._shown, inputs), values)

    def _targets(self, targets: Any) -> Tensor:
        return numbers_of(targets, (self.trained.recipe.outputs,), "targets")

    def _learn(self, kept: Tensor, labels: Tensor) -> Self:
        if len(kept) != len(labels):
            raise UserError(f"targets: {len(labels)} for {len(kept)} inputs; give one for each")
        if not len(kept):
            raise UserError("fit: there is no example to learn from")
        self._shown = self._adapt(kept, labels, 1, labels)
        return self

    def _labels_saved(self, shown: Shown) -> tuple[dict[str, Any], dict[str, Tensor]]:
        return {"flat": self._flat}, {_TARGETS: shown.labels}

    def _labels_again(self, said: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Any:
        self._flat = bool(said["flat"])
        return tensors[_TARGETS]

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
