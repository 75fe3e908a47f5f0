"""A trained teacher: from the content-addressed cache, or trained now and put there."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from metakd.data.cache import read_checked, write_checked
from metakd.data.images import ImageData
from metakd.models.network import Network
from metakd.stages.optimization import Optimization
from metakd.stages.precision import Precision
from metakd.stages.pretrain import pretrain
from metakd.stages.recorder import Recorder
from metakd.stages.sole import sole_maker

__all__ = ["CODE", "source_fingerprint", "teacher_key", "trained_teacher"]


def _code_fingerprint() -> str:
    """Return a hash of the source files that decide what a pre-trained teacher is."""
    package = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    stages = ("fit", "training", "finite", "pretrain", "optimization")
    rooms = ("models", "data", *(f"stages/{name}.py" for name in stages))
    for room in (*rooms, "algorithms/supervised.py", "distillation/objective.py"):
        path = package / room
        for file in sorted(path.glob("*.py")) if path.is_dir() else [path]:
            digest.update(file.name.encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()


CODE = _code_fingerprint()
"""Read when the program starts: sources that change while it runs are not the code that it runs."""


def source_fingerprint(cls: type) -> str:
    """Return a hash of the file that defines `cls`; a plug-in's is not among our own sources."""
    try:
        return hashlib.sha256(Path(inspect.getfile(cls)).read_bytes()).hexdigest()
    except (OSError, TypeError):  # defined in a notebook: there is no file
        return ""


def teacher_key(
    *,
    architecture: Mapping[str, Any],
    training: Mapping[str, Any],
    data_checksum: str,
    precision: str,
    device_type: str,
    threads: int,
    seed: int,
) -> str:
    """Return the content address of a teacher: everything that its weights depend on."""
    content = {
        "architecture": dict(architecture),
        "training": dict(training),
        "data": data_checksum,
        "precision": precision,
        "device": device_type,
        # Of one operation on the CPU: sums are added up in another order.
        "threads": threads if device_type == "cpu" else None,
        "seed": seed,
        "code": CODE,
        "torch": torch.__version__,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def trained_teacher(
    network: Network,
    data: ImageData,
    *,
    key: str,
    cache_root: Path | None,
    epochs: int,
    batch_size: int,
    label_smoothing: float,
    validate_fraction: float,
    optimization: Optimization,
    precision: Precision,
    seed: int,
    recorder: Recorder,
) -> tuple[Network, float, bool]:
    """Return (trained network, seconds of training, whether it came from the cache).

    Of several processes that need the same teacher one trains it; the others wait for it. If that
    one is stopped or killed, the next one trains.

    Args:
        network: the untrained teacher, with a head of all meta-train classes.
        data: the dataset.
        key: `teacher_key`.
        cache_root: folder of caches; None: neither read nor written.
        epochs: passes over the meta-train images.
        batch_size: images of an update.
        label_smoothing: of the loss.
        validate_fraction: share of each class held out for its own validation.
        optimization: optimiser and schedule.
        precision: number format.
        seed: decides order and augmentation (the initial weights are decided already).
        recorder: where metrics go.
    """
    folder = None if cache_root is None else cache_root / "teachers"

    def train() -> tuple[Network, float, bool]:
        fitted = pretrain(
            network,
            data,
            epochs=epochs,
            batch_size=batch_size,
            label_smoothing=label_smoothing,
            validate_fraction=validate_fraction,
            optimization=optimization,
            precision=precision,
            seed=seed,
            recorder=recorder,
        )
        if folder is not None:
            state = {n: t.detach().cpu().contiguous() for n, t in network.state_dict().items()}
            write_checked(folder, key, state, {"seconds": fitted.seconds, "accuracy": fitted.best})
        return network, fitted.seconds, False

    if folder is None:
        return train()
    if _from_cache(network, folder, key, recorder):
        return network.to(data.device), 0.0, True
    waits = f"teacher: another run trains it ({key[:12]}); waiting"
    with sole_maker(folder, key, lambda: recorder.say(waits)):
        if _from_cache(network, folder, key, recorder):  # whoever had the lock has made it
            return network.to(data.device), 0.0, True
        return train()


def _from_cache(network: Network, folder: Path, key: str, recorder: Recorder) -> bool:
    """Load what is kept under `key` into the network; tell whether there was anything."""
    found = read_checked(folder, key)
    if found is None:
        return False
    network.load_state_dict(found[0])
    recorder.say(f"teacher: taken from the cache ({key[:12]})")
    return True
