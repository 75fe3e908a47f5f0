"""A persistent pool of threads, one core each, that tasks are handed to on a CPU.

Small convolutions do not fill several cores, but several tasks do: PyTorch releases Python's lock
while it computes, so threads suffice and no tensor is copied.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

__all__ = ["in_order", "workers"]

Made = TypeVar("Made")
Result = TypeVar("Result")

_POOL: ThreadPoolExecutor | None = None
_WORKERS = 0


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
