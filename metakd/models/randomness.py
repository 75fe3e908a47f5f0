"""Whether a network draws random numbers, and the state of torch's, kept with a checkpoint."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from metakd.models.dropblock import DropBlock

__all__ = ["is_random", "random_state", "random_state_kept", "restore_random_state"]


def is_random(network: nn.Module) -> bool:
    """Say whether dropout or DropBlock is active in `network` (in training, probability > 0)."""
    return any(
        module.training
        and (
            (isinstance(module, _DropoutNd) and module.p > 0)
            or (isinstance(module, DropBlock) and module.probability > 0)
        )
        for module in network.modules()
    )


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


@contextlib.contextmanager
def random_state_kept() -> Iterator[None]:
    """Leave torch's generators as they were: a run seeds them, and they are the caller's."""
    state = random_state()
    try:
        yield
    finally:
        restore_random_state(state)
