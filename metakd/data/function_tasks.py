"""Families of functions to learn from a few of their points; a subclass says what is drawn."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from metakd.data.batches import EpochOrder
from metakd.data.counter_random import bits_at, derive, stream_key, uniform_from_bits
from metakd.data.dataset import RegressionTasks
from metakd.data.splits import SPLITS
from metakd.data.tasks import TaskBatch
from metakd.errors import UserError
from metakd.task_spec import TaskSpec

__all__ = ["FunctionStream", "FunctionTasks", "checked_noise", "normals", "uniforms"]

_NOISE = -1
"""Stream of the noise under a task's key; negative, because its other numbers count up from 0."""


class FunctionTasks(RegressionTasks):
    """A family of functions, drawn on a device; a task is one of them and some of its points.

    Args:
        noise: standard deviation of Gaussian noise on the targets that a learner learns from:
            support and query targets of meta-training, support targets alone when it is
            evaluated (validate, test), where the query targets are the function itself.
        decides: whatever else decides the tasks, plain values; `noise` is added.
    """

    def __init__(self, noise: float, decides: Sequence[Any]) -> None:
        self.noise = noise
        self.device = torch.device("cpu")
        text = json.dumps([self.name, *decides, noise])
        self.checksum = hashlib.sha256(text.encode()).hexdigest()

    @abstractmethod
    def drawn(self, keys: Tensor, points: int) -> tuple[Tensor, Tensor]:
        """Return points of each task's function; point p does not depend on their number.

        Args:
            keys: [tasks, 1] int64; each decides its task.
            points: of each task.

        Returns:
            inputs [tasks, points, inputs] and values [tasks, points, outputs], float64.
        """

    def to(self, device: torch.device | str) -> Self:
        """Return the same tasks, drawn on `device`."""
        moved = copy.copy(self)
        moved.device = torch.device(device)
        return moved

    def tasks(
        self,
        split: str,
        spec: TaskSpec,
        *,
        tasks: int,
        seed: int,
        stage: str,
        augmented: bool = False,
    ) -> FunctionStream:
        """Return the stream of a split's tasks; splits share no task.

        Args:
            split: `train`, `validate` or `test`.
            spec: support and query points of a task, and how many different tasks (functions with
                their points) there are, in a new order each epoch; a function has no classes.
            tasks: tasks a step.
            seed: with `stage` and `split` decides the tasks.
            stage: name of the stream's purpose.
            augmented: not used.

        Raises:
            UserError: a number of points or tasks is not positive.
        """
        del augmented
        assert split in SPLITS, split
        for what, value in (
            ("shots", spec.shots),
            ("queries", spec.queries),
            ("meta_batch", tasks),
        ):
            if value < 1:
                raise UserError(f"task.{what}={value}: give a positive number")
        if spec.number is not None and spec.number < 1:
            raise UserError(f"task.train_tasks={spec.number}: give a positive number, or null")
        key = stream_key(seed, self.name, split, stage)
        noise = (self.noise, self.noise if split == "train" else 0.0)
        return FunctionStream(self, spec, tasks=tasks, key=key, noise=noise)


class FunctionStream:
    """A `TaskStream` of functions; task `step * tasks + j` is a function of `key` alone.

    Args:
        family: draws the functions.
        spec: of the tasks.
        tasks: tasks a step.
        key: names the stream.
        noise: standard deviations of the noise on support and on query targets.
    """

    def __init__(
        self,
        family: FunctionTasks,
        spec: TaskSpec,
        *,
        tasks: int,
        key: int,
        noise: tuple[float, float],
    ) -> None:
        self._family, self._spec, self._tasks, self._key = family, spec, tasks, key
        self._noise = noise
        number, device = spec.number, family.device
        self._order = None if number is None else EpochOrder(key, number, device)

    def batch(self, step: int) -> TaskBatch:
        """Return the tasks of `step`.

        Returns:
            support [tasks, shots, inputs] and its targets [tasks, shots, outputs], query and its
            targets likewise, float32; `ways` is 1 and there are no classes, indices or views.
        """
        shots, queries = self._spec.shots, self._spec.queries
        keys = derive(stream_key(self._key, "tasks"), self._ids(step))[:, None]
        # Support and query points in turn: a task with more shots keeps the points it had.
        points = max(shots, queries)
        x, y = self._family.drawn(keys, 2 * points)
        if self._noise != (0.0, 0.0):
            deviations = torch.tensor(self._noise, dtype=y.dtype, device=y.device).repeat(points)
            noise = normals(derive(keys, torch.full_like(keys, _NOISE)), y[0].numel())
            y = y + deviations[:, None] * noise.view_as(y)
        x, y = (values.float().unflatten(1, (points, 2)) for values in (x, y))
        return TaskBatch(
            support=x[:, :shots, 0].contiguous(),
            support_targets=y[:, :shots, 0].contiguous(),
            query=x[:, :queries, 1].contiguous(),
            query_targets=y[:, :queries, 1].contiguous(),
            ways=1,
            shots=shots,
            queries=queries,
        )

    def _ids(self, step: int) -> Tensor:
        """Return which tasks `step` holds, int64 [tasks]."""
        first, end = step * self._tasks, (step + 1) * self._tasks
        position = torch.arange(first, end, device=self._family.device)
        number = self._spec.number
        if number is None or self._order is None:
            return position
        # A step may run over from one epoch's order of the tasks into the next one's.
        epochs = range(first // number, (end - 1) // number + 1)
        orders = torch.cat([self._order.of(epoch) for epoch in epochs])
        return orders[position - epochs[0] * number]


def checked_noise(noise: float) -> float:
    """Return the setting `dataset.noise`.

    Raises:
        UserError: it is negative or not finite.
    """
    if not (noise >= 0.0 and math.isfinite(noise)):
        raise UserError(f"dataset.noise={noise:g}: a standard deviation, give 0 or more")
    return float(noise)


def uniforms(keys: Tensor, count: int) -> Tensor:
    """Return float64 [tasks, count] in [0, 1); `keys` is [tasks, 1]."""
    numbers = torch.arange(count, device=keys.device)
    return uniform_from_bits(bits_at(keys, numbers), torch.float64)


def normals(keys: Tensor, count: int) -> Tensor:
    """Return float64 [tasks, count], standard normal by Box and Muller's transform."""
    pair = uniforms(keys, 2 * count).view(-1, count, 2)
    radius = torch.sqrt(-2.0 * torch.log1p(-pair[..., 0]))
    return radius * torch.cos(2.0 * math.pi * pair[..., 1])
