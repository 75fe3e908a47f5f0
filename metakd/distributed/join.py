"""Whether torchrun started this process, and how it joins the others."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta

from metakd.distributed.group import ALONE, Group
from metakd.errors import UserError

__all__ = ["joined", "launched", "own_device", "refuse"]

MEETING = timedelta(minutes=5)
"""How long processes wait for all to be there."""

PATIENCE = timedelta(days=7)
"""How long a process waits for another that works alone (on a teacher, say); one that ends is
noticed at once."""


def launched() -> int:
    """Return how many processes torchrun started for this command; 1 without it."""
    if not all(name in os.environ for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")):
        return 1
    size = os.environ["WORLD_SIZE"]
    return int(size) if size.isdigit() else 1


def refuse(what: str, instead: str) -> None:
    """Refuse a command that several processes would do several times over.

    Raises:
        UserError: torchrun started this process.
    """
    if launched() > 1:
        raise UserError(f"torchrun starts several processes for one run, not for {what}; {instead}")


@contextmanager
def joined() -> Iterator[Group]:
    """Be one of torchrun's processes while the block runs; without torchrun one alone.

    An error that all processes share is said by one of them; they end with the same status.
    """
    if launched() == 1:
        yield ALONE
        return
    import torch
    import torch.distributed as dist
    from torch.distributed.rendezvous import rendezvous

    from metakd.distributed.processes import Processes, close

    cuda = torch.cuda.is_available() and dist.is_nccl_available()
    local = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cpu")
    if cuda and local < torch.cuda.device_count():
        device = torch.device("cuda", local)
    try:
        store, rank, size = next(rendezvous("env://", timeout=MEETING))
        store.set_timeout(PATIENCE)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if cuda else "gloo",
            store=store,
            rank=rank,
            world_size=size,
            timeout=PATIENCE,
        )
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"torchrun's processes do not find each other ({reason[:160]}); see that every "
            "machine reaches MASTER_ADDR:MASTER_PORT"
        ) from error
    yield Processes(device)
    close()  # after an error the others may be gone: the end of the process is enough


def own_device(asked: str, group: Group, environment: Mapping[str, str] | None = None) -> str:
    """Return the device of this process: that of its number on its machine.

    Args:
        asked: `auto`, `cpu`, `cuda` …
        group: the processes.
        environment: where torchrun says its numbers; None: this process's.

    Raises:
        UserError: a device for all processes was named, or there are too few.
    """
    if group.size == 1:
        return asked
    import torch

    found = os.environ if environment is None else environment
    local, here = int(found.get("LOCAL_RANK", "0")), int(found.get("LOCAL_WORLD_SIZE", "1"))
    if asked == "cpu" or (asked == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if asked not in ("auto", "cuda"):
        raise UserError(
            f"device={asked}: with torchrun each process takes a device of its own; type "
            "device=cuda or device=cpu"
        )
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if here > count:
        raise UserError(
            f"torchrun started {here} processes on this machine, and torch sees {count} CUDA "
            f"devices here; type --nproc-per-node {max(count, 1)}, or device=cpu"
        )
    return f"cuda:{local}"
