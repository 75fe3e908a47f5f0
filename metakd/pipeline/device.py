"""The device that a run computes on."""

from __future__ import annotations

import torch

from metakd.config.checks import check_device
from metakd.errors import UserError

__all__ = ["choose_device"]


def choose_device(asked: str) -> torch.device:
    """Return the device that `asked` (`auto`, `cpu`, `cuda`, `cuda:1`, `mps`) means.

    Raises:
        UserError: this machine has no such device, or none is called so.
    """
    check_device(asked)
    if asked == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("cpu")
    device = torch.device(asked)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise UserError(
                f"device={asked}: torch sees {count} CUDA devices here; use device=cpu, or see "
                "'metakd doctor'"
            )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("device=mps: there is none on this machine; use device=cpu")
    return device
