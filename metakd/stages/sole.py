"""One process at a time makes an entry of a cache; the others wait for it."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

__all__ = ["sole_maker"]

logger = logging.getLogger(__name__)

POLL_S = 0.2


@contextmanager
def sole_maker(folder: Path, key: str, waiting: Callable[[], None]) -> Iterator[None]:
    """Be the only one, of all processes, in the block for `key`.

    The operating system holds the lock for the process: however a holder ends, even killed, the
    next one goes on at once. Whoever waits can be interrupted. Where no lock can be had (a cache
    that cannot be written, a file system without locks) the block runs without: work is then
    done twice at worst.

    Args:
        folder: of the cache; made if need be.
        key: any text, of the entry.
        waiting: called once if somebody else holds the lock.
    """
    path = folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.lock"
    lock = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            waiting()
            lock.acquire(timeout=-1, poll_interval=POLL_S)
    except (OSError, NotImplementedError) as error:
        logger.warning("%s cannot be locked (%s); going on without", path, error)
        lock = None
    try:
        yield
    finally:
        if lock is not None:
            lock.release()
