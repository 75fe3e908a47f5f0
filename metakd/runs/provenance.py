"""Where a result came from: code, versions, command, machine."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metakd.runs.process import host_name, process_start

if TYPE_CHECKING:
    from metakd.runs.records_run import RunInfo

__all__ = ["changes", "collect", "git_commit", "machine"]

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
"""Packages whose version can change a figure, a task or an image."""


VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_CBWR",
    "ATEN_CPU_CAPABILITY",
    "ONEDNN_MAX_CPU_ISA",
    "CUDA_VISIBLE_DEVICES",
    "CUBLAS_WORKSPACE_CONFIG",
    "NVIDIA_TF32_OVERRIDE",
    "PYTORCH_ENABLE_MPS_FALLBACK",
    "OMP_WAIT_POLICY",
    "GOMP_SPINCOUNT",
    "METAKD_DATA",
    "METAKD_CACHE",
)
"""Environment variables that decide figures, speed or where data lies. No others are recorded: they
can hold secrets."""

_NO_FIGURES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "METAKD_DATA", "METAKD_CACHE")
"""Those of them that decide no figure."""

DIFF_BYTES = 64 * 1024
"""A longer difference to the commit is cut here; its SHA-256 tells two of them apart all the same.
run.json is read often."""

COMPARED = (
    "git_commit",
    "git_dirty",
    "git_diff_sha256",
    "python",
    "platform",
    "processor",
    "gpus",
    "device",
    "precision",
    "threads",
    "deterministic",
    "data_checksum",
)
"""Facts of run.json that figures depend on, beside versions and environment variables."""


def collect(argv: Sequence[str]) -> dict[str, Any]:
    """Return what run.json records of this process and its code.

    Args:
        argv: the command line, e.g. ``["metakd", "train", "algorithm=maml"]``.

    Returns:
        `pid`, `host`, `process_start`, `command` (quoted for a shell), `directory`, `packages`,
        `python`, `platform`, `processor` (its model), `cpus` (that this process may use),
        `environment` (those of `VARIABLES` that are set), what `git_commit` finds, and, where
        torch is in use, `threads` (of one operation) and `gpus` (models, where CUDA is in use).
    """
    pid = os.getpid()
    return {
        "pid": pid,
        "host": host_name(),
        "process_start": process_start(pid),
        "command": shlex.join(argv),
        "directory": _text(str(Path.cwd())),
        "packages": _versions(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        **machine(),
        "environment": {n: _text(os.environ[n]) for n in VARIABLES if n in os.environ},
        **git_commit(Path(__file__).resolve().parents[2]),
    }


def machine() -> dict[str, Any]:
    """Return on what latencies are measured: `processor`, `threads` and `gpus`, as `collect`."""
    return {"processor": _processor(), **_of_torch()}


def changes(before: RunInfo, now: RunInfo) -> list[str]:
    """Return what differs between two runs' run.json that figures can depend on.

    Args:
        before: run.json of a run.
        now: that of another, or what it will hold.

    Returns:
        words such as ``torch 2.11.0 -> 2.13.0`` or ``threads 1 -> 2``; what one of the two did
        not record is left out.
    """
    found = [
        f"{name} {_short(old)} -> {_short(new)}"
        for name in COMPARED
        for old, new in [(getattr(before, name), getattr(now, name))]
        if old is not None and new is not None and old != new
    ]
    for old, new in (
        (before.packages, now.packages),
        (before.environment, now.environment),
    ):
        if old is not None and new is not None:
            found += [
                f"{name} {old.get(name, 'absent')} -> {new.get(name, 'absent')}"
                for name in dict.fromkeys([*old, *new])
                if old.get(name) != new.get(name) and name not in _NO_FIGURES
            ]
    return found


def _text(value: str) -> str:
    """Return `value` without what JSON cannot hold (a folder can have any name)."""
    return value.encode(errors="replace").decode()


def _short(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    text = str(value)
    return text[:12] if len(text) in (40, 64) and text.isalnum() else text  # a hash


def _of_torch() -> dict[str, Any]:
    """Return facts that torch knows; importing it takes seconds, so only if it is imported."""
    torch = sys.modules.get("torch")
    if torch is None:
        return {}
    found: dict[str, Any] = {"threads": torch.get_num_threads()}
    if torch.cuda.is_initialized():
        count = range(torch.cuda.device_count())
        found["gpus"] = [torch.cuda.get_device_name(i) for i in count]
    return found


def _processor() -> str:
    """Return the processor's model: which instructions it has decides how sums are rounded."""
    if sys.platform == "linux":
        facts: dict[str, str] = {}
        try:
            with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
                for line in file:
                    key, _, value = line.partition(":")
                    if not key.strip():
                        break  # the first processor is enough
                    facts[key.strip()] = value.strip()
        except OSError:
            pass
        numbers = ("cpu family", "model", "stepping", "CPU implementer", "CPU part")
        words = [facts.get("model name", ""), *(f"{n} {facts[n]}" for n in numbers if n in facts)]
        if found := ", ".join(w for w in words if w):
            return found
    return platform.processor() or platform.machine()


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
    """Return which code is in the clone at `root`; empty where there is no clone.

    Only a repository whose top level is `root` counts: an installed package may be inside the
    repository of another project.

    Returns:
        `git_commit`, `git_dirty` (whether files that git knows differ from it); if so `git_diff`,
        its text, `git_diff_sha256` and, where the text was cut at `DIFF_BYTES`, `git_diff_bytes`,
        its whole length.
    """
    if not (root / ".git").exists():
        return {}
    try:
        commit = _git(root, "rev-parse", "HEAD").decode().strip()
        # Files that git does not know could be anything, a key among them.
        if not _git(root, "status", "--porcelain", "--untracked-files=no").strip():
            return {"git_commit": commit, "git_dirty": False}
        # A user's own tools and colours have no say in what is recorded.
        plain = ("--no-ext-diff", "--no-textconv", "--no-color", "--full-index")
        diff = _git(root, "diff", *plain, "HEAD")
    except (OSError, subprocess.SubprocessError):  # no git, no commit yet, not ours to read
        return {}
    found = {
        "git_commit": commit,
        "git_dirty": True,
        "git_diff": diff[:DIFF_BYTES].decode(errors="replace"),
        "git_diff_sha256": hashlib.sha256(diff).hexdigest(),
    }
    return {**found, "git_diff_bytes": len(diff)} if len(diff) > DIFF_BYTES else found


def _git(root: Path, *words: str) -> bytes:
    # Within a hook of another repository these would lead there.
    elsewhere = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")
    own = {k: v for k, v in os.environ.items() if k not in elsewhere}
    command = ["git", "-C", str(root), *words]
    return subprocess.run(command, capture_output=True, check=True, timeout=10, env=own).stdout
