"""Linear systems: each task is an affine map to be learned from a few of its points.

y = A x + b with `inputs` numbers x and `outputs` numbers y. x and b are standard normal, entries of
A normal with variance 1 / inputs, so that A x and b contribute a variance of 1 each to every y.
Least squares over inputs + 1 points without noise solves a task exactly.
"""

from __future__ import annotations

import math
from pathlib import Path

from torch import Tensor

from metakd.data.function_tasks import FunctionTasks, checked_noise, normals
from metakd.errors import UserError

__all__ = ["LinearSystemTasks", "LinearSystems"]

_VERSION = 1  # raised whenever the same keys give other tasks


class LinearSystems:
    """The dataset; there is nothing to read or to cache.

    Args:
        data_root: not used: the tasks are computed.
        noise: see `FunctionTasks`; a y has standard deviation √2.
        inputs: numbers x.
        outputs: numbers y.

    Raises:
        UserError: `noise` is negative or not finite, a number of inputs or outputs no positive
            integer.
    """

    def __init__(
        self, data_root: Path, *, noise: float = 0.0, inputs: int = 4, outputs: int = 2
    ) -> None:
        del data_root
        self.noise = checked_noise(noise)
        for name, value in (("inputs", inputs), ("outputs", outputs)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UserError(f"dataset.options.{name}={value}: give a positive integer")
        self.inputs, self.outputs = inputs, outputs

    def cache_key(self) -> None:
        """Return None: the tasks are cheaper to compute than to read."""
        return None

    def load(self) -> LinearSystemTasks:
        """Return the tasks, on the CPU."""
        return LinearSystemTasks(self.inputs, self.outputs, noise=self.noise)


class LinearSystemTasks(FunctionTasks):
    """The family of affine maps."""

    name = "linear_systems"

    def __init__(self, inputs: int, outputs: int, *, noise: float = 0.0) -> None:
        super().__init__(noise, [_VERSION, inputs, outputs])
        self.example_shape, self.outputs = (inputs,), outputs

    def drawn(self, keys: Tensor, points: int) -> tuple[Tensor, Tensor]:
        """See `FunctionTasks.drawn`: A and b, then the points' inputs."""
        (inputs,), outputs = self.example_shape, self.outputs
        found = normals(keys, outputs * (inputs + 1) + points * inputs)
        system, x = found.tensor_split([outputs * (inputs + 1)], dim=1)
        system, x = system.unflatten(1, (outputs, inputs + 1)), x.unflatten(1, (points, inputs))
        slopes, offset = system[..., :-1] / math.sqrt(inputs), system[..., -1]
        return x, x @ slopes.mT + offset[:, None]
