"""`metakd doctor`: checks of this machine, with a remedy for each 'no'."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from metakd.cli.parser import Parser
from metakd.config.locate import Choices, user_folder
from metakd.config.renamed import renamed
from metakd.errors import UserError

__all__ = ["Finding", "examine", "run"]

HELP = """\
usage: metakd doctor [--data-root DIR] [--cache-root DIR]

Checks versions, devices, datasets and the W&B login, with a remedy for each 'no'. Nothing is
downloaded and nothing is changed.

  --data-root DIR    folder of datasets (else METAKD_DATA, then ./data)
  --cache-root DIR   folder of caches (else METAKD_CACHE, then the user's cache folder)
  --config-dir, -cd  also a folder of your own configuration files

example: metakd doctor --data-root ~/datasets"""


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        good: whether it is there.
        what: what was looked for.
        detail: what was found.
        remedy: what to do where it is not.
    """

    good: bool
    what: str
    detail: str
    remedy: str = ""

    def __str__(self) -> str:
        remedy = f"  ->  {self.remedy}" if self.remedy and not self.good else ""
        return f"{'yes' if self.good else 'no ':<4} {self.what:<16} {self.detail}{remedy}"


def run(arguments: Sequence[str]) -> int:
    """Print the report."""
    parser = Parser("doctor", HELP)
    parser.add_argument("--data-root")
    parser.add_argument("--cache-root")
    parser.add_argument("--config-dir", "-cd")
    asked = parser.read(arguments)
    if asked.help:
        print(HELP)
        return 0
    choices = Choices(user_folder(asked.config_dir))
    for finding in examine(choices, asked.data_root, asked.cache_root):
        print(finding, flush=True)
    return 0


def examine(
    choices: Choices, data_root: str | None = None, cache_root: str | None = None
) -> Iterator[Finding]:
    """Yield the result of each check."""
    yield _python()
    for package in ("torch", "torchvision", "hydra-core", "omegaconf", "wandb"):
        yield _package(package)
    yield from _devices()
    yield from _datasets(choices, data_root)
    yield _cache(cache_root)
    yield _login()


def _python() -> Finding:
    good = (3, 11) <= sys.version_info[:2] < (3, 14)
    return Finding(
        good, "python", platform.python_version(), "use Python 3.11, 3.12 or 3.13 (Hydra's limit)"
    )


def _package(name: str) -> Finding:
    try:
        return Finding(True, name, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(False, name, "not installed", f"pip install {name}")


def _devices() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        import torch
    except (ImportError, OSError) as error:
        reason = " ".join(str(error).split())
        yield Finding(False, "torch loads", reason, "pip install torch torchvision, both together")
        return
    yield Finding(True, "processor", f"{cores} cores, {torch.get_num_threads()} threads")
    try:
        import torchvision
    except (ImportError, OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        yield Finding(False, "torchvision", reason, "pip install torch torchvision, both together")
    else:
        yield Finding(True, "pair loads", f"{torch.__version__} with {torchvision.__version__}")
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        yield Finding(True, "cuda", ", ".join(names))
    else:
        remedy = "device=cpu works; for a GPU, a driver and a torch built with CUDA"
        yield Finding(False, "cuda", "no GPU that torch can use", remedy)
    if sys.platform == "darwin":
        found = torch.backends.mps.is_available()
        yield Finding(found, "mps", "Apple's GPU", "needs macOS 12.3 and Apple silicon")
    yield _bfloat16()


def _bfloat16() -> Finding:
    import torch

    from metakd.stages.precision import choose_precision

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pays = choose_precision("auto", device).dtype is torch.bfloat16
    detail = "precision=auto uses it" if pays else "precision=auto uses float32"
    remedy = "none: this processor has no bfloat16 arithmetic"
    return Finding(pays, "bfloat16", detail, remedy)


def _datasets(choices: Choices, typed: str | None) -> Iterator[Finding]:
    from metakd.data.load import data_root_from

    root = data_root_from(typed)
    remedy = "--data-root DIR here, data_root=DIR in training, or METAKD_DATA=DIR"
    yield Finding(root.is_dir(), "data_root", str(root), remedy)
    for name, file in choices.of("dataset").items():
        content, _ = renamed(yaml.safe_load(file.read_text(encoding="utf-8")) or {}, "dataset")
        places = [str(p) for p in content.get("supports", {}).get("found_at", ())]
        found = [p for p in places if (root / p).exists()]
        if not places:  # drawn by the program, or a folder that the user names
            continue
        other = "or let training download it" if _downloads(content) else "it is not downloaded"
        remedy = f"put it at {' or '.join(places)} there, {other}"
        yield Finding(bool(found), f"  {name}", found[0] if found else "not there", remedy)


def _downloads(content: dict[str, Any]) -> bool:
    """Tell whether a dataset's class downloads it; one of a plug-in is not asked."""
    from metakd.registry import resolve

    try:
        cls = resolve(str(content.get("_target_")), "metakd.data")
    except (UserError, ImportError):
        return False
    return bool(getattr(cls, "downloads", False))


def _cache(typed: str | None) -> Finding:
    from metakd.data.load import cache_root_from

    root = cache_root_from(typed)
    existing = next(p for p in (root, *root.parents) if p.exists())
    remedy = "cache_root=DIR or METAKD_CACHE=DIR; without it every run prepares its data again"
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        return Finding(False, "cache_root", f"{root}: {error.strerror}", remedy)
    return Finding(True, "cache_root", f"{root} can be written, {_held(root)}")


def _held(root: Path) -> str:
    """Return what a cache folder holds, the largest parts first; nothing ever limits it."""
    parts: dict[str, int] = {}
    for folder, _, names in os.walk(root):
        inside = Path(folder).relative_to(root).parts
        part = inside[0] if inside else "other files"
        for name in names:
            with contextlib.suppress(OSError):  # another run has just removed it
                parts[part] = parts.get(part, 0) + (Path(folder) / name).lstat().st_size
    total = sum(parts.values())
    if not total:
        return "empty"
    each = sorted(parts.items(), key=lambda part: -part[1])
    named = ", ".join(f"{part} {_size(size)}" for part, size in each)
    return f"holds {_size(total)} ({named}); delete it while no run is going on, if too large"


def _size(count: int) -> str:
    if count < 1_000_000:
        return f"{count / 1e3:.0f} kB"
    return f"{count / 1e6:.0f} MB" if count < 1_000_000_000 else f"{count / 1e9:.1f} GB"


def _login() -> Finding:
    from metakd.tracking.login import logged_in, server

    address = server(os.environ)
    if logged_in(os.environ):
        return Finding(True, "wandb login", f"a key for {Path(address).name} is there")
    remedy = "'wandb login'; without it runs are logged offline"
    return Finding(False, "wandb login", f"no key for {address}", remedy)
