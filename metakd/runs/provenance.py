"""Where a result came from: code, versions, command, machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from metakd.runs.process import host_name, process_start

__all__ = ["collect", "git_commit"]

PACKAGES = (
    "metakd",
    "torch",
    "torchvision",
    "numpy",
    "hydra-core",
    "omegaconf",
    "safetensors",
    "matplotlib",
    "pillow",
    "wandb",
)
"""Packages whose version can change a figure, a task or a picture."""


def collect(argv: Sequence[str]) -> dict[str, Any]:
    """Return what run.json records of this process and its code.

    Args:
        argv: the command line, e.g. ``["metakd", "train", "algorithm=maml"]``.

    Returns:
        `pid`, `host`, `process_start`, `command` (quoted for a shell), `directory`, `git_commit`
        and `git_dirty` (absent outside a clone of the project), `packages`, `python`,
        `platform`, `cpus` (that this process may use).
    """
    pid = os.getpid()
    info: dict[str, Any] = {
        "pid": pid,
        "host": host_name(),
        "process_start": process_start(pid),
        "command": shlex.join(argv),
        "directory": str(Path.cwd()),
        "packages": _versions(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
    }
    return {**info, **git_commit(Path(__file__).resolve().parents[2])}


def _versions() -> dict[str, str]:
    """Return the versions of the installed ones of `PACKAGES`, without importing them."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def git_commit(root: Path) -> dict[str, Any]:
    """Return `git_commit` and `git_dirty` of the clone at `root`; empty where there is none.

    Only a repository whose top level is `root` counts: an installed package may lie inside the
    repository of somebody else's project.
    """
    if not (root / ".git").exists():
        return {}
    try:
        commit = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):  # no git, no commit yet, not ours to read
        return {}
    return {"git_commit": commit, "git_dirty": bool(changed)}


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(root), *words], capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()
