"""Sinusoid regression: each task is a sine wave to be learned from a few of its points.

method.md section 5, after Finn et al. 2017: y = A sin(x + b), A in U(0.1, 5), b in U(0, π),
x in U(-5, 5).
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from metakd.data.function_tasks import FunctionTasks, checked_noise, uniforms

__all__ = ["Sinusoid", "SinusoidTasks"]

_AMPLITUDE = (0.1, 5.0)
_PHASE = (0.0, math.pi)
_INPUT = (-5.0, 5.0)
_VERSION = 1  # raised whenever the same keys give other tasks


class Sinusoid:
    """The dataset; there is nothing to read or to cache.

    Args:
        data_root: not used: the tasks are computed.
        noise: see `FunctionTasks`; the waves' amplitudes are 0.1 to 5.

    Raises:
        UserError: `noise` is negative or not finite.
    """

    def __init__(self, data_root: Path, *, noise: float = 0.0) -> None:
        del data_root
        self.noise = checked_noise(noise)

    def cache_key(self) -> None:
        """Return None: the tasks are cheaper to compute than to read."""
        return None

    def load(self) -> SinusoidTasks:
        """Return the tasks, on the CPU."""
        return SinusoidTasks(noise=self.noise)


class SinusoidTasks(FunctionTasks):
    """The family of waves."""

    name = "sinusoid"
    example_shape: tuple[int, ...] = (1,)
    outputs = 1

    def __init__(self, *, noise: float = 0.0) -> None:
        super().__init__(noise, [_VERSION, _AMPLITUDE, _PHASE, _INPUT])

    def drawn(self, keys: Tensor, points: int) -> tuple[Tensor, Tensor]:
        """See `FunctionTasks.drawn`: amplitude and phase, then the points' inputs."""
        found = uniforms(keys, 2 + points)
        amplitude, phase = _within(_AMPLITUDE, found[:, :1]), _within(_PHASE, found[:, 1:2])
        x = _within(_INPUT, found[:, 2:])
        y = amplitude * torch.sin(x + phase)
        return x[..., None], y[..., None]


def _within(bounds: tuple[float, float], fraction: Tensor) -> Tensor:
    low, high = bounds
    return low + (high - low) * fraction
