"""How much memory is still free for this process."""

from __future__ import annotations

from pathlib import Path

import torch

__all__ = ["available_memory"]

# Version 2 and version 1 of control groups: (limit, usage, statistics).
_GROUPS = (
    ("memory.max", "memory.current", "memory.stat"),
    (
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
    ),
)
_ROOT = Path("/")


def available_memory(device: torch.device, root: Path = _ROOT) -> int | None:
    """Return the bytes that can still be taken, None where that is not known.

    On CUDA what the device has left (what PyTorch keeps for itself counts as left); on a CPU under
    Linux what the system has left (MemAvailable), or what the control group of a container has,
    if that is less. File pages that the group could drop count as left.

    Args:
        device: where training computes.
        root: where `proc` and `sys` are (for tests).
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type != "cpu":
        return None
    found = [_system(root / "proc/meminfo"), *(_group(root / "sys/fs/cgroup", g) for g in _GROUPS)]
    return min((left for left in found if left is not None), default=None)


def _system(file: Path) -> int | None:
    return _entry(file, "MemAvailable:", 1024)


def _group(folder: Path, names: tuple[str, str, str]) -> int | None:
    limit, usage = (_number(folder / name) for name in names[:2])
    if limit is None or usage is None:
        return None
    droppable = _entry(folder / names[2], "inactive_file", 1) or 0
    return max(limit - usage + droppable, 0)


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # no such file; "max"
        return None


def _entry(file: Path, key: str, unit: int) -> int | None:
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        words = line.split()
        if len(words) > 1 and words[0] == key and words[1].isdigit():
            return int(words[1]) * unit
    return None
