"""The state of torch's random numbers, which dropout draws from: kept with a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["random_state", "restore_random_state"]


def random_state() -> dict[str, Tensor]:
    """Return the generators' states by device, each as a byte tensor [n] on the CPU."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state |= {f"cuda:{i}": s for i, s in enumerate(torch.cuda.get_rng_state_all())}
    return state


def restore_random_state(state: Mapping[str, Tensor]) -> None:
    """Go on where `random_state` was taken; devices that are not here now are left out."""
    torch.set_rng_state(state["cpu"])
    for name, value in state.items():
        if name != "cpu" and torch.cuda.is_available():
            device = torch.device(name)
            if (device.index or 0) < torch.cuda.device_count():
                torch.cuda.set_rng_state(value, device)
