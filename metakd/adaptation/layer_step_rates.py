"""`options.learn_rates=per_layer_per_step`: a learned inner rate for every layer and step."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from metakd.adaptation.differentiation import Tensors
from metakd.adaptation.update_rules import GradientDescent, UpdateRule
from metakd.errors import UserError, nearest

__all__ = ["LayerStepRates", "descent"]

_LEARN_RATES = ("none", "per_layer_per_step")


class LayerStepRates(UpdateRule):
    """φ_l ← φ_l - β_lk ∇_l L in layer l at step k, β learned (MAML++, Antoniou et al. 2019).

    A layer is a module: its weight and bias share a rate. Steps beyond those of training go on
    with the last one's rates. Rates are free: training may make one 0 or negative.

    Args:
        lr: all rates at first.
        steps: inner steps in training.
    """

    def __init__(self, lr: float, steps: int) -> None:
        super().__init__()
        self.lr = lr
        self.steps = steps
        self.rates = nn.ParameterDict()

    def attach(self, parameters: Tensors) -> None:
        """See `UpdateRule`; makes `rates`, [steps] for each layer."""
        for name, parameter in parameters.items():
            if _layer(name) not in self.rates:
                rates = torch.full((self.steps,), self.lr, dtype=parameter.dtype)
                self.rates[_layer(name)] = nn.Parameter(rates.to(parameter.device))

    def forward(
        self, step: int, parameters: Tensors, gradients: Tensors, loss: torch.Tensor, state: Any
    ) -> tuple[Tensors, Any]:
        """See `UpdateRule`."""
        at = min(step, self.steps - 1)
        moved = {
            name: value - self.rates[_layer(name)][at] * gradients[name]
            for name, value in parameters.items()
        }
        return moved, None


def _layer(name: str) -> str:
    # Names of parameters cannot hold a dot.
    return name.rpartition(".")[0].replace(".", "/")


def descent(learn_rates: str, lr: float, steps: int) -> UpdateRule:
    """Return the update rule that the setting `learn_rates` names.

    Args:
        learn_rates: `none` (one constant rate) or `per_layer_per_step`.
        lr: the rate, or where the learned ones start.
        steps: inner steps in training.

    Raises:
        UserError: no such setting.
    """
    if learn_rates == "none":
        return GradientDescent(lr)
    if learn_rates == "per_layer_per_step":
        return LayerStepRates(lr, max(steps, 1))  # a wrong number is refused later
    raise UserError(
        f"algorithm.options.learn_rates={learn_rates}: choose one of {', '.join(_LEARN_RATES)}."
        + nearest(learn_rates, _LEARN_RATES)
    )
