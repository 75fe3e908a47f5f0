"""What is trained once and shared by all runs that need the same: teachers, undistilled twins.

An entry's key is the content address of what its weights depend on. Of several processes that need
an entry that is not there one makes it; the others wait for it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metakd.data.cache import read_checked
from metakd.stages.recorder import Recorder
from metakd.stages.sole import sole_maker

__all__ = ["content_address", "fingerprint", "from_cache_or_made"]

PACKAGE = Path(__file__).resolve().parents[1]


def fingerprint(*rooms: str) -> str:
    """Return a hash of source files of ours.

    Args:
        rooms: folders (whose files count) and files, relative to the package.
    """
    digest = hashlib.sha256()
    for room in rooms:
        path = PACKAGE / room
        for file in sorted(path.glob("*.py")) if path.is_dir() else [path]:
            digest.update(file.name.encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()


def content_address(content: Mapping[str, Any], device_type: str, threads: int) -> str:
    """Return the key of weights that depend on `content`, on torch, and on what computes.

    Args:
        content: plain values; those that JSON does not know count by their text.
        device_type: `cpu`, `cuda` …
        threads: of one operation on the CPU, where sums are added up in their order.
    """
    whole = {
        **content,
        "device": device_type,
        "threads": threads if device_type == "cpu" else None,
        "torch": torch.__version__,
    }
    return hashlib.sha256(json.dumps(whole, sort_keys=True, default=str).encode()).hexdigest()


def from_cache_or_made(
    folder: Path,
    key: str,
    what: str,
    recorder: Recorder,
    take: Callable[[Mapping[str, Tensor], Mapping[str, Any]], None],
    make: Callable[[], None],
) -> bool:
    """Take what is kept under `key`, or make it; tell whether it came from the cache.

    If whoever makes it is stopped or killed, the next one does.

    Args:
        folder: of the cache.
        key: of the entry.
        what: it is, for lines.
        recorder: where lines go.
        take: given an entry's tensors and meta data.
        make: makes it, takes it and keeps it.
    """

    def taken() -> bool:
        found = read_checked(folder, key)
        if found is None:
            return False
        take(*found)
        recorder.say(f"{what}: taken from the cache ({key[:12]})")
        return True

    if taken():
        return True
    waits = f"{what}: another run trains it ({key[:12]}); waiting"
    with sole_maker(folder, key, lambda: recorder.say(waits)):
        if taken():  # whoever had the lock has made it
            return True
        make()
        return False
