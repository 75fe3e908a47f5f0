"""`options.learn_rates=per_layer_per_step`: a learned inner rate for every layer and step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from metakd.algorithms.differentiation import Tensors
from metakd.algorithms.update_rules import GradientDescent, UpdateRule
from metakd.errors import UserError, nearest

__all__ = ["LEARN_RATES", "LayerStepRates", "descent"]

_HEAD = ("network.head.weight", "network.head.bias")

LEARN_RATES = ("none", "per_layer_per_step")


class LayerStepRates(UpdateRule):
    """φ_l ← φ_l - β_lk ∇_l L in layer l at step k, β learned (MAML++, Antoniou et al. 2019).

    A layer is a module: its weight and bias share a rate. Steps beyond those of training go on
    with the last one's rates. Rates are free: training may make one 0 or negative.

    Args:
        names: of the parameters that adapt, `network.head.weight` …
        lr: all rates at first.
        steps: inner steps in training.
    """

    def __init__(self, names: Iterable[str], lr: float, steps: int) -> None:
        super().__init__()
        self.steps = steps
        layers = dict.fromkeys(_layer(name) for name in names)
        self.rates = nn.ParameterDict(
            {layer: nn.Parameter(torch.full((steps,), lr)) for layer in layers}
        )

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


def descent(
    learn_rates: str, lr: float, steps: int, *, backbone: nn.Module | None = None
) -> UpdateRule:
    """Return the update rule that the setting `learn_rates` names.

    Args:
        learn_rates: `none` (one constant rate) or `per_layer_per_step`.
        lr: the rate, or where the learned ones start.
        steps: inner steps in training.
        backbone: what adapts beside the head; None: the head alone.

    Raises:
        UserError: no such setting.
    """
    if learn_rates == "none":
        return GradientDescent(lr)
    if learn_rates == "per_layer_per_step":
        body = [] if backbone is None else [n for n, _ in backbone.named_parameters()]
        names = [*(f"network.backbone.{name}" for name in body), *_HEAD]
        return LayerStepRates(names, lr, max(steps, 1))  # a wrong number is refused later
    raise UserError(
        f"algorithm.options.learn_rates={learn_rates}: choose one of {', '.join(LEARN_RATES)}."
        + nearest(learn_rates, LEARN_RATES)
    )
