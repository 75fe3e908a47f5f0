"""The exponential moving average of a learner's weights over its updates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["WeightAverage"]


class WeightAverage:
    """Follows a module's weights: a ← d a + (1 - d) w after each update (Polyak & Juditsky 1992).

    After update n (from 1) d is min(decay, n / (9 + n)), as in TensorFlow's
    `ExponentialMovingAverage` with its number of updates: the first weights, which are random, are
    soon forgotten. The running statistics of normalisation layers are averaged as weights are;
    every other buffer (a counter, say) is as it was last.

    Args:
        module: whose weights.
        decay: d, above 0 and below 1.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._module, self._decay = module, decay
        self._updates = 0
        self._average: dict[str, Any] = {}
        self._weights: dict[str, Any] | None = None  # the module's own while it shows the average

    @torch.no_grad()
    def update(self) -> None:
        """Take note of the module's weights after an update."""
        decay = min(self._decay, self._updates / (9 + self._updates))
        self._updates += 1
        averaged = _averaged(self._module)
        now = self._module.state_dict()
        means, values = list[Tensor](), list[Tensor]()
        for name, value in now.items():
            if name in averaged and name in self._average:
                means.append(self._average[name])
                values.append(value)
            elif isinstance(value, Tensor):
                self._average[name] = value.clone()
            else:
                self._average[name] = value
        if means:
            torch._foreach_lerp_(means, values, 1.0 - decay)

    def weights(self) -> dict[str, Any]:
        """Return the module's own state, whatever it shows."""
        return self._module.state_dict() if self._weights is None else self._weights

    def average(self) -> dict[str, Any]:
        """Return the averaged state; before the first update the module's own."""
        return self._average or self._module.state_dict()

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Let the module have the averaged weights in the block."""
        if not self._average:
            yield
            return
        self._weights = {
            n: v.clone() if isinstance(v, Tensor) else v
            for n, v in self._module.state_dict().items()
        }
        try:
            self._module.load_state_dict(self._average)
            yield
        finally:
            self._module.load_state_dict(self._weights)
            self._weights = None

    def state(self) -> dict[str, Any]:
        """Return what `load` takes."""
        return {"updates": self._updates, "average": self._average}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        self._updates = int(state["updates"])
        self._average = {
            name: value.to(own.device, own.dtype, copy=True) if isinstance(value, Tensor) else value
            for name, own in self._module.state_dict().items()
            for value in (state["average"].get(name, own),)
        }


def _averaged(module: nn.Module) -> set[str]:
    """Return the names of the parameters and of the running statistics."""
    names = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    for path, part in module.named_modules(remove_duplicate=False):
        for name in ("running_mean", "running_var"):
            if isinstance(getattr(part, name, None), Tensor):
                names.add(f"{path}.{name}" if path else name)
    return names
