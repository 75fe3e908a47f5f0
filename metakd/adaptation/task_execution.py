"""How the tasks of a meta-batch are computed: one by one, in threads, or all at once.

The result is the same up to rounding; which is fastest depends on network and device. Stacked
weights turn convolutions into grouped ones, slow on a CPU and the natural way on a GPU, where
such small networks are bound by kernel launches; matrix products batch well everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils import _pytree as pytree

from metakd.adaptation.differentiation import by_autograd, by_transform
from metakd.adaptation.inner_loop import InnerLoop, Task
from metakd.adaptation.task_workers import in_order, workers
from metakd.errors import UserError
from metakd.models.normalization import batchable
from metakd.models.randomness import is_random

__all__ = ["choose_execution", "mean_over_tasks", "stack_over_tasks"]

Result = TypeVar("Result")
Job = Callable[[InnerLoop, Task], Result]


def choose_execution(asked: str, network: nn.Module, tasks: int, device: torch.device) -> str:
    """Return `loop`, `threads` or `batched`.

    Args:
        asked: `auto`, `loop`, `threads` or `batched`; `auto` decides by device and network.
        network: what adapts.
        tasks: number of tasks.
        device: where they lie.

    Raises:
        UserError: the choice gives wrong results for this network.
    """
    safe = batchable(network)
    random = is_random(network)
    if asked == "batched" and not safe:
        raise UserError(
            "algorithm.options.execution=batched: this network has a native normalisation layer "
            "whose batched second-order gradients are wrong; use execution=loop"
        )
    if asked == "threads" and random:
        raise UserError(
            "algorithm.options.execution=threads: dropout would depend on which thread comes "
            "first; use execution=loop"
        )
    if asked != "auto":
        return asked
    if device.type == "cpu" and any(isinstance(m, _ConvNd) for m in network.modules()):
        return "threads" if min(tasks, workers()) > 1 and not random else "loop"
    return "batched" if safe and device.type in ("cpu", "cuda") else "loop"


def mean_over_tasks(job: Job[Result], loop: InnerLoop, tasks: Task, how: str) -> Result:
    """Return the mean of `job(loop, task)`, nested tensors, summed in the order of the tasks."""
    if how == "batched":
        return pytree.tree_map(lambda leaf: leaf.mean(0), _all_at_once(job, loop, tasks))
    total: Result | None = None
    for result in _one_by_one(job, loop, tasks, how):
        total = result if total is None else pytree.tree_map(torch.add, total, result)
    assert total is not None
    return pytree.tree_map(lambda leaf: leaf / _count(tasks), total)


def stack_over_tasks(
    job: Callable[[InnerLoop, Task], Tensor], loop: InnerLoop, tasks: Task, how: str
) -> Tensor:
    """Return the results of `job(loop, task)` stacked, [tasks, …]."""
    if how == "batched":
        return _all_at_once(job, loop, tasks)
    return torch.stack(list(_one_by_one(job, loop, tasks, how)))


def _one_by_one(job: Job[Result], loop: InnerLoop, tasks: Task, how: str) -> Iterator[Result]:
    loop = replace(loop, differentiate=by_autograd)
    if how == "threads":
        return in_order(loop.replica, lambda mine, i: job(mine, tasks.at(i)), _count(tasks))
    mine = loop.replica()
    return (job(mine, tasks.at(i)) for i in range(_count(tasks)))


def _all_at_once(job: Job[Result], loop: InnerLoop, tasks: Task) -> Result:
    loop = replace(loop, differentiate=by_transform)
    if loop.batchnorm is not None:
        loop = loop.replica()
    axes = pytree.tree_map(lambda leaf: 0 if isinstance(leaf, Tensor) else None, tasks)
    batched: Callable[[Task], Result] = torch.func.vmap(
        lambda task: job(loop, task), in_dims=(axes,), randomness="different"
    )
    return batched(tasks)


def _count(tasks: Task) -> int:
    return tasks.support.inputs.shape[0]
