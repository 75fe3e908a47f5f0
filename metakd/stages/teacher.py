"""A trained teacher: from the content-addressed cache, or trained now and put there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from metakd.data.cache import write_checked
from metakd.models.network import Network
from metakd.stages.fit import Fitted
from metakd.stages.kept import content_address, fingerprint, from_cache_or_made
from metakd.stages.recorder import Recorder

__all__ = ["CODE", "teacher_key", "trained_teacher"]

STAGES = ("fit", "training", "pretrain", "optimization", "weight_average", "ingredients")
CODE = fingerprint(
    "models",
    "data",
    *(f"stages/{name}.py" for name in STAGES),
    "algorithms/supervised.py",
    *(f"distillation/{name}.py" for name in ("objective", "distillation", "kd", "divergences")),
)
"""Of the sources that decide what a pre-trained teacher is, read when the program starts: sources
that change while it runs are not the code that it runs."""


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
        "seed": seed,
        "code": CODE,
    }
    return content_address(content, device_type, threads)


def trained_teacher(
    network: Network,
    recorder: Recorder,
    train: Callable[[], Fitted],
    *,
    key: str,
    cache_root: Path | None,
    stage: str = "pretrain",
) -> tuple[Network, float, bool]:
    """Return (trained network, seconds of training, whether it came from the cache).

    Of several processes that need the same teacher one trains it; the others wait for it. If that
    one is stopped or killed, the next one trains.

    Args:
        network: the untrained teacher, on the device where it is trained.
        recorder: where lines go, and what was done before comes from.
        train: trains it in place.
        key: `teacher_key`.
        cache_root: folder of caches; None: neither read nor written.
        stage: that trains it.
    """
    folder = None if cache_root is None else cache_root / "teachers"
    seconds = 0.0

    def take(weights: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        network.load_state_dict(weights)

    # Part of what an earlier process began may have been done with other settings or sources.
    whole = not recorder.begun(stage)

    def make() -> None:
        nonlocal seconds
        fitted = train()
        seconds = fitted.seconds
        if folder is not None and whole:
            state = network.state_dict()
            write_checked(folder, key, state, {"seconds": fitted.seconds, "best": fitted.best})

    if folder is None:
        make()
        return network, seconds, False
    cached = from_cache_or_made(folder, key, "teacher", recorder, take, make)
    return network, seconds, cached
