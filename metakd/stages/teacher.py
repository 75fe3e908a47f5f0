"""A trained teacher: from the content-addressed cache, or trained now and put there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from metakd.data.cache import write_checked
from metakd.data.class_data import ClassData
from metakd.models.network import Network
from metakd.stages.context import StageContext
from metakd.stages.kept import content_address, fingerprint, from_cache_or_made
from metakd.stages.pretrain import pretrain

__all__ = ["CODE", "teacher_key", "trained_teacher"]

STAGES = ("fit", "training", "finite", "pretrain", "optimization")
CODE = fingerprint(
    "models",
    "data",
    *(f"stages/{name}.py" for name in STAGES),
    "algorithms/supervised.py",
    "distillation/objective.py",
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
    data: ClassData,
    context: StageContext,
    *,
    key: str,
    cache_root: Path | None,
    epochs: int,
    batch_size: int,
    label_smoothing: float,
    validate_fraction: float,
    updates: int | None = None,
) -> tuple[Network, float, bool]:
    """Return (trained network, seconds of training, whether it came from the cache).

    Of several processes that need the same teacher one trains it; the others wait for it. If that
    one is stopped or killed, the next one trains.

    Args:
        network: the untrained teacher, with a head of all meta-train classes.
        data: the dataset.
        context: how it computes (the initial weights are decided already), and where metrics go.
        key: `teacher_key`.
        cache_root: folder of caches; None: neither read nor written.
        epochs: passes over the meta-train images.
        batch_size: images of an update.
        label_smoothing: of the loss.
        validate_fraction: share of each class held out for its own validation.
        updates: at least so many, in further passes; None: `epochs` alone decides.
    """
    folder = None if cache_root is None else cache_root / "teachers"
    seconds, recorder = 0.0, context.recorder

    def take(weights: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        network.load_state_dict(weights)
        network.to(data.device)

    # Part of what an earlier process began may have been done with other settings or sources.
    whole = not recorder.begun("pretrain")

    def make() -> None:
        nonlocal seconds
        fitted = pretrain(
            network,
            data,
            context,
            epochs=epochs,
            batch_size=batch_size,
            label_smoothing=label_smoothing,
            validate_fraction=validate_fraction,
            updates=updates,
        )
        seconds = fitted.seconds
        if folder is not None and whole:
            state = network.state_dict()
            write_checked(folder, key, state, {"seconds": fitted.seconds, "accuracy": fitted.best})

    if folder is None:
        make()
        return network, seconds, False
    cached = from_cache_or_made(folder, key, "teacher", recorder, take, make)
    return network, seconds, cached
