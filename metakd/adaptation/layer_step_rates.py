"""`options.learn_rates=per_layer_per_step`: a learned inner rate for every layer and step."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from metakd.adaptation.differentiation import Tensors
from metakd.adaptation.settings import Adaptation
from metakd.adaptation.update_rules import GradientDescent, UpdateRule

__all__ = ["LayerStepRates", "descent"]


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


def descent(adaptation: Adaptation) -> UpdateRule:
    """Return gradient descent with the rate of `adaptation`, constant or where it starts."""
    if adaptation.learn_rates == "per_layer_per_step":
        return LayerStepRates(adaptation.inner_lr, adaptation.inner_steps)
    return GradientDescent(adaptation.inner_lr)
