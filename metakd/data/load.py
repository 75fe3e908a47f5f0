"""From a dataset to its data on the compute device, by way of the cache."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metakd.data.cache import content_checksum, read_checked, write_checked
from metakd.data.dataset import Dataset, RegressionTasks
from metakd.data.images import PARTS, ClassImages, ImageData, PreparedImages

__all__ = ["cache_root_from", "data_root_from", "load_dataset"]

_TENSORS = ("images", "labels", "groups", "held_out")


def data_root_from(typed: str | None) -> Path:
    """Return the folder of datasets: as typed, else METAKD_DATA, else ``./data``."""
    return Path(typed or os.environ.get("METAKD_DATA") or "data").expanduser().absolute()


def cache_root_from(typed: str | None) -> Path:
    """Return the cache folder: as typed, else METAKD_CACHE, else metakd in the user's cache."""
    if chosen := typed or os.environ.get("METAKD_CACHE"):
        return Path(chosen).expanduser().absolute()
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path("~/.cache").expanduser()).absolute() / "metakd"


def load_dataset(
    dataset: Dataset,
    *,
    cache_root: Path,
    device: torch.device | str = "cpu",
    augment: Sequence[str] = (),
    views: int = 1,
) -> ImageData | RegressionTasks:
    """Return the data of `dataset` on `device`, prepared once and then read from the cache.

    Args:
        dataset: what to load.
        cache_root: prepared data is kept in its folder `prepared`.
        device: where the data lives from now on.
        augment: kinds of random change of training images.
        views: fixed views of a training image, see `ImageData`.

    Raises:
        UserError: the data is missing or damaged.
    """
    key = dataset.cache_key()
    folder = cache_root / "prepared"
    kept = None if key is None else read_checked(folder, key)
    if kept is not None:
        tensors, meta = kept
        prepared = _unpack(tensors, meta)
    else:
        loaded = dataset.load()
        if not isinstance(loaded, PreparedImages):
            return loaded.to(device)
        prepared = loaded
        tensors, meta = _pack(prepared)
        meta["checksum"] = content_checksum(tensors, meta)
        if key is not None:
            write_checked(folder, key, tensors, meta)
    return ImageData(prepared, device, augment, views, meta["checksum"])


def _pack(prepared: PreparedImages) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors = {f"{p}.{t}": getattr(prepared.parts[p], t) for p in PARTS for t in _TENSORS}
    meta = {
        "name": prepared.name,
        "class_names": {p: list(prepared.parts[p].class_names) for p in PARTS},
        "group_names": {p: list(prepared.parts[p].group_names) for p in PARTS},
    }
    return tensors, meta


def _unpack(tensors: dict[str, Tensor], meta: dict[str, Any]) -> PreparedImages:
    parts = {
        p: ClassImages(
            class_names=tuple(meta["class_names"][p]),
            group_names=tuple(meta["group_names"][p]),
            **{t: tensors[f"{p}.{t}"] for t in _TENSORS},
        )
        for p in PARTS
    }
    return PreparedImages(parts, meta["name"])
