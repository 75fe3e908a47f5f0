"""Sinusoid regression: each task is a sine wave to be learned from a few of its points.

method.md section 5, after Finn et al. 2017: y = A sin(x + b), A in U(0.1, 5), b in U(0, π),
x in U(-5, 5).
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import torch
from torch import Tensor

from metakd.data.batches import EpochOrder
from metakd.data.counter_random import bits_at, derive, stream_key, uniform_from_bits
from metakd.data.dataset import RegressionTasks
from metakd.data.splits import SPLITS
from metakd.data.tasks import TaskBatch
from metakd.errors import UserError
from metakd.task_spec import TaskSpec

__all__ = ["Sinusoid", "SinusoidStream", "SinusoidTasks"]

_AMPLITUDE = (0.1, 5.0)
_PHASE = (0.0, math.pi)
_INPUT = (-5.0, 5.0)
_VERSION = 1  # raised whenever the same keys give other tasks

_NOISE = -1
"""Stream of the noise under a task's key; negative, because its other numbers count up from 0."""


class Sinusoid:
    """The dataset; there is nothing to read or to cache.

    Setting: `noise`, the standard deviation of Gaussian noise on the targets that a learner learns
    from: support and query targets of meta-training, support targets alone when it is judged
    (validate, test), where the query targets are the wave itself.
    """

    def __init__(self, data_root: Path, *, noise: float = 0.0) -> None:
        """Keep the settings.

        Args:
            data_root: not used: the tasks are computed.
            noise: standard deviation, 0 or more; the waves' amplitudes are 0.1 to 5.

        Raises:
            UserError: `noise` is negative or not finite.
        """
        del data_root
        if not (noise >= 0.0 and math.isfinite(noise)):
            raise UserError(f"dataset.noise={noise:g}: a standard deviation, give 0 or more")
        self.noise = float(noise)

    def cache_key(self) -> None:
        """Return None: the tasks are cheaper to compute than to read."""
        return None

    def load(self) -> SinusoidTasks:
        """Return the tasks, on the CPU."""
        return SinusoidTasks(noise=self.noise)


class SinusoidTasks(RegressionTasks):
    """The family of waves, drawn on a device.

    Attributes:
        checksum: SHA-256 of everything that decides the tasks.
    """

    name = "sinusoid"
    kind = "regression"
    example_shape: tuple[int, ...] = (1,)
    outputs = 1

    def __init__(self, *, noise: float = 0.0, device: torch.device | str = "cpu") -> None:
        self.noise = noise
        self.device = torch.device(device)
        decides = [self.name, _VERSION, _AMPLITUDE, _PHASE, _INPUT, noise]
        self.checksum = hashlib.sha256(json.dumps(decides).encode()).hexdigest()

    def to(self, device: torch.device | str) -> SinusoidTasks:
        """Return the same tasks, drawn on `device`."""
        return SinusoidTasks(noise=self.noise, device=device)

    def tasks(
        self,
        split: str,
        spec: TaskSpec,
        *,
        tasks: int,
        seed: int,
        stage: str,
        augmented: bool = False,
    ) -> SinusoidStream:
        """Return the stream of a split's tasks; splits share no task.

        Args:
            split: `train`, `validate` or `test`.
            spec: support and query points of a task, and how many different tasks (waves with
                their points) there are, in a new order each epoch; a wave has no classes.
            tasks: tasks a step.
            seed: with `stage` and `split` decides the tasks.
            stage: name of the stream's purpose.
            augmented: not used.

        Raises:
            UserError: a number of points or tasks is not positive.
        """
        del augmented
        shots, queries, number = spec.shots, spec.queries, spec.number
        assert split in SPLITS, split
        for what, value in (("shots", shots), ("queries", queries), ("meta_batch", tasks)):
            if value < 1:
                raise UserError(f"task.{what}={value}: give a positive number")
        if number is not None and number < 1:
            raise UserError(f"task.train_tasks={number}: give a positive number, or null")
        return SinusoidStream(
            shots=shots,
            queries=queries,
            tasks=tasks,
            key=stream_key(seed, self.name, split, stage),
            number=number,
            support_noise=self.noise,
            query_noise=self.noise if split == "train" else 0.0,
            device=self.device,
        )


class SinusoidStream:
    """A `TaskStream` of waves; task `step * tasks + j` is a function of `key` alone.

    Args:
        shots: support points of a task.
        queries: query points of a task.
        tasks: tasks a step.
        key: names the stream.
        number: how many different tasks there are; None: endless.
        support_noise: standard deviation of the noise on support targets.
        query_noise: the same of query targets.
        device: where the tasks are drawn.
    """

    def __init__(
        self,
        *,
        shots: int,
        queries: int,
        tasks: int,
        key: int,
        number: int | None,
        support_noise: float,
        query_noise: float,
        device: torch.device,
    ) -> None:
        self._shots, self._queries, self._tasks = shots, queries, tasks
        self._key, self._number, self._device = key, number, device
        self._noise = (support_noise, query_noise)
        self._order = None if number is None else EpochOrder(key, number, device)

    def batch(self, step: int) -> TaskBatch:
        """Return the tasks of `step`.

        Returns:
            support and its targets [tasks, shots, 1], query and its targets [tasks, queries, 1],
            float32; `ways` is 1 and there are no classes, indices or views.
        """
        keys = derive(stream_key(self._key, "tasks"), self._ids(step))[:, None]
        # Amplitude, phase, then support and query inputs in turn: numbered by the point alone, a
        # task with more shots keeps the points it had.
        points = max(self._shots, self._queries)
        drawn = _uniforms(keys, 2 + 2 * points)
        amplitude, phase = _within(_AMPLITUDE, drawn[:, :1]), _within(_PHASE, drawn[:, 1:2])
        x = _within(_INPUT, drawn[:, 2:])
        y = amplitude * torch.sin(x + phase)
        if self._noise != (0.0, 0.0):
            deviations = torch.tensor(self._noise, dtype=y.dtype, device=y.device).repeat(points)
            y += deviations * _normals(derive(keys, torch.full_like(keys, _NOISE)), 2 * points)
        x, y = (values.float().view(-1, points, 2, 1) for values in (x, y))
        return TaskBatch(
            support=x[:, : self._shots, 0].contiguous(),
            support_targets=y[:, : self._shots, 0].contiguous(),
            query=x[:, : self._queries, 1].contiguous(),
            query_targets=y[:, : self._queries, 1].contiguous(),
            ways=1,
            shots=self._shots,
            queries=self._queries,
        )

    def _ids(self, step: int) -> Tensor:
        """Return which tasks `step` holds, int64 [tasks]."""
        position = torch.arange(step * self._tasks, (step + 1) * self._tasks, device=self._device)
        if self._number is None or self._order is None:
            return position
        # A step may run over from one epoch's order of the tasks into the next one's.
        first, last = step * self._tasks // self._number, int(position[-1]) // self._number
        orders = torch.cat([self._order.of(epoch) for epoch in range(first, last + 1)])
        return orders[position - first * self._number]


def _uniforms(keys: Tensor, count: int) -> Tensor:
    """Return float64 [tasks, count] in [0, 1); `keys` is [tasks, 1]."""
    numbers = torch.arange(count, device=keys.device)
    return uniform_from_bits(bits_at(keys, numbers), torch.float64)


def _normals(keys: Tensor, count: int) -> Tensor:
    """Return float64 [tasks, count], standard normal by Box and Muller's transform."""
    pair = _uniforms(keys, 2 * count).view(-1, count, 2)
    radius = torch.sqrt(-2.0 * torch.log1p(-pair[..., 0]))
    return radius * torch.cos(2.0 * math.pi * pair[..., 1])


def _within(bounds: tuple[float, float], fraction: Tensor) -> Tensor:
    low, high = bounds
    return low + (high - low) * fraction
