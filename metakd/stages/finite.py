"""Whether an update may be made: its loss and every gradient are finite numbers."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from metakd.errors import RunError

__all__ = ["NotFiniteError", "Snapshot", "complaint"]


class NotFiniteError(RunError):
    """A loss or a gradient of an update is not finite; the update was not made."""

    def __init__(self, stage: str, step: int, what: str) -> None:
        setting = stage.removesuffix("_alone")
        super().__init__(
            f"{stage}, step {step}: {what}; lower {setting}.lr or algorithm.inner_lr, or let "
            f"some such updates be skipped with {setting}.skip_nonfinite=10; "
            "metakd train replay=RUN shows which task it was"
        )


def complaint(loss: Tensor, modules: Mapping[str, nn.Module]) -> str | None:
    """Say what of an update is not finite, or None.

    Args:
        loss: the outer loss, a scalar. A loss of the inner loop that is not finite makes the
            parameters after it, and so this one, not finite.
        modules: what has been given gradients, by name.
    """
    if not torch.isfinite(loss):
        return f"the loss is {float(loss)}"
    named = [
        (f"{name}.{part}", p.grad)
        for name, module in modules.items()
        for part, p in module.named_parameters()
        if p.grad is not None
    ]
    if not named:
        return None
    # One reduction a tensor and one read for all of them: reading each would wait for a GPU.
    norms = torch.stack(list(torch._foreach_norm([g for _, g in named], float("inf"))))
    if bool(torch.isfinite(norms).all()):
        return None
    bad = [n for (n, _), norm in zip(named, norms.tolist(), strict=True) if not _finite(norm)]
    return f"the gradient of {bad[0]}{f' and {len(bad) - 1} more' if bad[1:] else ''} is not finite"


def _finite(number: float) -> bool:
    return number - number == 0.0


class Snapshot:
    """The state of a learner before an update, to go back to if the update must not be made.

    A forward pass moves running statistics, and a teacher that learns steps inside its update.
    """

    def __init__(self, modules: Mapping[str, nn.Module], others: Mapping[str, Optimizer]) -> None:
        self._modules = dict(modules)
        self._others = dict(others)
        self._states: dict[str, Any] = {
            name: copy.deepcopy(m.state_dict()) for name, m in self._modules.items()
        }
        self._optimizers = {n: copy.deepcopy(o.state_dict()) for n, o in self._others.items()}

    def restore(self) -> None:
        """Go back."""
        for name, module in self._modules.items():
            module.load_state_dict(self._states[name])
        for name, optimizer in self._others.items():
            optimizer.load_state_dict(self._optimizers[name])
