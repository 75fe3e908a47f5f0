"""How the tasks of a meta-batch are computed: one by one, in threads, or all at once.

The result is the same up to rounding; which is fastest depends on network and device. Stacked
weights turn convolutions into grouped ones, slow on a CPU and the natural way on a GPU, where
such small networks are bound by kernel launches; matrix products batch well everywhere.

Threads are a persistent pool, one core each. Small convolutions do not fill several cores, but
several tasks do: PyTorch releases Python's lock while it computes, so threads suffice and no tensor
is copied.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils import _pytree as pytree

from metakd.adaptation.differentiation import by_transform
from metakd.adaptation.inner_loop import InnerLoop, Task
from metakd.errors import UserError
from metakd.models.normalization import batchable
from metakd.models.randomness import is_random

__all__ = ["choose_execution", "in_order", "mean_over_tasks", "stack_over_tasks", "workers"]

Made = TypeVar("Made")
Result = TypeVar("Result")
Job = Callable[[InnerLoop, Task], Result]

_POOL: ThreadPoolExecutor | None = None
_WORKERS = 0


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
    """Return the mean of `job(loop, task)`, nested tensors, summed in the order of the tasks.

    Args:
        job: adapts to a task, in `threads` with a replica of the loop.
        loop: takes gradients by autograd; no pass of it is to move running statistics
            (`without_updates`).
        tasks: a batch of tasks.
        how: see `choose_execution`.
    """
    if how == "batched":
        return pytree.tree_map(lambda leaf: leaf.mean(0), _all_at_once(job, loop, tasks))
    total: Result | None = None
    for result in _one_by_one(job, loop, tasks, how):
        total = result if total is None else pytree.tree_map(torch.add, total, result)
    assert total is not None
    return pytree.tree_map(lambda leaf: leaf / len(tasks.support.inputs), total)


def stack_over_tasks(
    job: Callable[[InnerLoop, Task], Tensor], loop: InnerLoop, tasks: Task, how: str
) -> Tensor:
    """Return the results of `job(loop, task)` stacked, [tasks, …]."""
    if how == "batched":
        return _all_at_once(job, loop, tasks)
    return torch.stack(list(_one_by_one(job, loop, tasks, how)))


def _one_by_one(job: Job[Result], loop: InnerLoop, tasks: Task, how: str) -> Iterator[Result]:
    count = len(tasks.support.inputs)
    if how == "threads":
        return in_order(loop.replica, lambda mine, i: job(mine, tasks.at(i)), count)
    return (job(loop, tasks.at(i)) for i in range(count))


def _all_at_once(job: Job[Result], loop: InnerLoop, tasks: Task) -> Result:
    loop = replace(loop, differentiate=by_transform)
    axes = pytree.tree_map(lambda leaf: 0 if isinstance(leaf, Tensor) else None, tasks)
    batched: Callable[[Task], Result] = torch.func.vmap(
        lambda task: job(loop, task), in_dims=(axes,), randomness="different"
    )
    return batched(tasks)


def workers() -> int:
    """Return the number of threads: as many as PyTorch used for one operation at first sight."""
    global _WORKERS
    if not _WORKERS:
        _WORKERS = torch.get_num_threads()
    return _WORKERS


def in_order(
    make: Callable[[], Made], job: Callable[[Made, int], Result], count: int
) -> Iterator[Result]:
    """Yield job(made, 0), job(made, 1) … `count` - 1, computed by the pool, in this order.

    Args:
        make: called at most once in each worker, for what its jobs may change at will.
        job: computes a result. It runs with one thread per operation, so that a result does not
            depend on the number of workers.
        count: number of jobs.
    """
    made: dict[int, Made] = {}

    def run(i: int) -> Result:
        here = threading.get_ident()
        if here not in made:
            made[here] = make()
        return job(made[here], i)

    futures = [_pool().submit(run, i) for i in range(count)]
    try:
        for i, future in enumerate(futures):
            yield future.result()
            futures[i] = None  # type: ignore[call-overload]  # a result can be large: let it go
    finally:  # an error or an interrupt leaves no work behind
        for future in futures:
            if future is not None:
                future.cancel()


def _pool() -> ThreadPoolExecutor:
    global _POOL
    if _POOL is None:
        count = workers()
        ready = threading.Barrier(count + 1)

        def one_core() -> None:
            # A thread takes the process's number when it first asks for one, even after its own was
            # set. Two threads in each of two workers wait for each other: convolutions of bfloat16
            # then take thirty times as long.
            torch.get_num_threads()
            torch.set_num_threads(1)
            ready.wait()

        before = torch.get_num_threads()
        _POOL = ThreadPoolExecutor(count, "metakd-task")
        for _ in range(count):
            _POOL.submit(one_core)
        ready.wait()
        # The call above also decides for threads yet to come; this thread's number is its own.
        torch.set_num_threads(before)
    return _POOL


def _forget() -> None:
    """Threads do not survive a fork: the child starts a pool of its own."""
    global _POOL
    _POOL = None


os.register_at_fork(after_in_child=_forget)
