"""From a dataset to its data on the compute device, by way of the cache."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metakd.data.cache import content_checksum, read_checked, write_checked
from metakd.data.dataset import Dataset, RegressionTasks
from metakd.data.images import PARTS, ClassImages, ImageData, PreparedImages
from metakd.data.prepared_checks import check_prepared
from metakd.data.preprocessing import Preprocessing, Reading
from metakd.data.sources import SourceFiles
from metakd.errors import UserError

__all__ = ["cache_root_from", "data_root_from", "load_dataset"]

log = logging.getLogger(__name__)
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
    preprocessing: Preprocessing | None = None,
) -> ImageData | RegressionTasks:
    """Return the data of `dataset` on `device`, prepared once and then read from the cache.

    Args:
        dataset: what to load.
        cache_root: prepared data is kept in its folder `prepared`.
        device: where the data lives from now on.
        augment: kinds of random change of training images.
        views: fixed views of a training image, see `ImageData`.
        preprocessing: what the networks expect, see `ImageData`.

    Raises:
        UserError: the data is missing or damaged.
    """
    key, sources = _key_and_sources(dataset)
    folder = cache_root / "prepared"
    kept = None if key is None else _still_right(folder, key, sources)
    if kept is not None:
        prepared, meta = kept
    else:
        record = {} if key is None else sources.record()
        loaded = dataset.load()
        if not isinstance(loaded, PreparedImages):
            return loaded.to(device)
        prepared = loaded
        try:
            check_prepared(prepared)
        except ValueError as error:
            raise UserError(f"dataset {prepared.name}: {error}") from error
        tensors, meta = _pack(prepared)
        if key is not None:
            if _key_and_sources(dataset) == (key, sources):
                write_checked(folder, key, tensors | record, meta)
            else:
                log.warning("the files of dataset %s changed while they were read", prepared.name)
    return ImageData(prepared, device, augment, views, meta["checksum"], preprocessing)


def _key_and_sources(dataset: Dataset) -> tuple[str | None, SourceFiles]:
    """Return what the cache calls this data, and the files it is made from, if it says which."""
    key = dataset.cache_key()
    list_files = getattr(dataset, "sources", None)
    if key is None or list_files is None:
        return key, SourceFiles([])
    sources = SourceFiles(list_files())
    return f"{key} {sources.key()}", sources


def _still_right(
    folder: Path, key: str, sources: SourceFiles
) -> tuple[PreparedImages, dict[str, Any]] | None:
    """Return what the cache holds under `key`, if `sources` are still what it was made from."""
    kept = read_checked(folder, key)
    if kept is None:
        return None
    tensors, meta = kept
    prepared = _unpack(tensors, meta)
    record = sources.verified(tensors)
    if prepared is None or record is None:
        return None
    if record is not tensors:  # same contents, other times: next time they need not all be read
        write_checked(folder, key, record, meta)
    return prepared, meta


def _pack(prepared: PreparedImages) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return what a cache entry holds; its `checksum` is of pixels, labels and names alone."""
    tensors = {f"{p}.{t}": getattr(prepared.parts[p], t) for p in PARTS for t in _TENSORS}
    meta = {
        "name": prepared.name,
        "class_names": {p: list(prepared.parts[p].class_names) for p in PARTS},
        "group_names": {p: list(prepared.parts[p].group_names) for p in PARTS},
    }
    meta["checksum"] = content_checksum(tensors, meta)
    # How the pixels came about is no part of what they are.
    meta["reading"] = asdict(prepared.reading)
    meta["notes"] = list(prepared.notes)
    return tensors, meta


def _unpack(tensors: dict[str, Tensor], meta: dict[str, Any]) -> PreparedImages | None:
    """Return what a cache entry holds; None, with a warning, if that is no prepared data.

    Its checksum says that it is what somebody wrote, not that it was this program.
    """
    try:
        parts = {
            p: ClassImages(
                class_names=tuple(meta["class_names"][p]),
                group_names=tuple(meta["group_names"][p]),
                **{t: tensors[f"{p}.{t}"] for t in _TENSORS},
            )
            for p in PARTS
        }
        if not isinstance(meta["checksum"], str):
            raise ValueError("its checksum is no text")
        prepared = PreparedImages(
            parts,
            str(meta["name"]),
            reading=Reading(**meta.get("reading", {})),
            notes=tuple(str(line) for line in meta.get("notes", ())),
        )
        check_prepared(prepared)
    except (ValueError, TypeError, KeyError) as error:
        log.warning("a cache entry holds no prepared data (%s); it is made anew", error)
        return None
    return prepared
