"""From a dataset to its data on the compute device, by way of the cache."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metakd.class_source import is_built_in, source_fingerprint
from metakd.data.available_memory import available_memory
from metakd.data.cache import content_checksum, read_checked, write_checked
from metakd.data.class_data import ClassData
from metakd.data.class_examples import ClassExamples, PreparedData
from metakd.data.dataset import REQUIRED, Dataset, RegressionTasks
from metakd.data.images import ImageData
from metakd.data.on_disk import large_in
from metakd.data.preprocessing import Preprocessing
from metakd.data.sources import SourceFiles
from metakd.data.splits import SPLITS
from metakd.errors import UserError

__all__ = ["cache_root_from", "data_root_from", "load_dataset"]

log = logging.getLogger(__name__)
_TENSORS = {"images": "examples", "labels": "labels", "groups": "groups", "held_out": "held_out"}
"""Names of the tensors in a cache entry, and the attributes that they are. Checksums include the
names and stand in recorded runs, so examples of every kind are called `images` there."""


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
    in_memory: float = 1.0,
) -> ClassData | RegressionTasks:
    """Return the data of `dataset` on `device`, prepared once and then read from the cache.

    Args:
        dataset: what to load.
        cache_root: prepared data is kept in its folder `prepared`.
        device: where the data lives from now on.
        augment: kinds of random change of training examples.
        views: fixed views of a training example, see `ClassData`.
        preprocessing: what the networks expect, see `ClassData`.
        in_memory: share of the free memory that prepared data may take on a CPU; larger data lies
            in files of the cache, mapped.

    Raises:
        UserError: the data is missing or damaged, or `dataset` loads something else.
    """
    device, folder = torch.device(device), cache_root / "prepared"
    free = available_memory(device) if device.type == "cpu" else None
    with large_in(folder, None if free is None else in_memory * free):
        loaded, checksum = _loaded(dataset, folder)
        if isinstance(loaded, RegressionTasks):
            return loaded.to(device)
        kind: type[ClassData] = getattr(dataset, "data_class", ImageData)
        return kind(loaded, device, augment, views, checksum, preprocessing)


def _loaded(dataset: Dataset, folder: Path) -> tuple[PreparedData | RegressionTasks, str]:
    """Return what `dataset` loads or the cache in `folder` holds of it, and its checksum."""
    kind: type[ClassData] = getattr(dataset, "data_class", ImageData)
    key, sources = _key_and_sources(dataset)
    kept = None if key is None else _still_right(folder, key, sources, kind)
    if kept is not None:
        prepared, meta = kept
    else:
        record = {} if key is None else sources.record()
        loaded = dataset.load()
        if isinstance(loaded, RegressionTasks):
            _check_complete(loaded)
            return loaded, ""
        if not isinstance(loaded, PreparedData):
            raise UserError(
                f"{type(dataset).__name__}.load returned a {type(loaded).__name__}: a family of "
                "regression tasks must inherit from metakd.data.dataset.RegressionTasks, examples "
                "by class are a metakd.data.class_examples.PreparedData"
            )
        prepared = loaded
        if prepared.reading is None:
            prepared = replace(prepared, reading=kind.reading_type())
        try:
            kind.check(prepared)
        except ValueError as error:
            raise UserError(f"dataset {prepared.name}: {error}") from error
        tensors, meta = _pack(prepared)
        if key is not None:
            if _key_and_sources(dataset) == (key, sources):
                write_checked(folder, key, tensors | record, meta)
            else:
                log.warning("the files of dataset %s changed while they were read", prepared.name)
    return prepared, meta["checksum"]


def _check_complete(tasks: RegressionTasks) -> None:
    cls = type(tasks)
    own = {name for c in cls.__mro__ if c not in (RegressionTasks, object) for name in vars(c)}
    missing = [name for name in REQUIRED if name not in own | vars(tasks).keys()]
    if missing:
        raise UserError(f"{cls.__name__}: a family of regression tasks defines {missing[0]}, too")


def _key_and_sources(dataset: Dataset) -> tuple[str | None, SourceFiles]:
    """Return what the cache calls this data, and the files it is made from, if it says which."""
    key = dataset.cache_key()
    if key is not None and not is_built_in(cls := type(dataset)):
        # A copy of another class may have kept its key, and an edited file its version number.
        key = f"{key} {cls.__qualname__} {source_fingerprint(cls)}"
    list_files = getattr(dataset, "sources", None)
    if key is None or list_files is None:
        return key, SourceFiles([])
    sources = SourceFiles(list_files())
    return f"{key} {sources.key()}", sources


def _still_right(
    folder: Path, key: str, sources: SourceFiles, kind: type[ClassData]
) -> tuple[PreparedData, dict[str, Any]] | None:
    """Return what the cache holds under `key`, if `sources` are still what it was made from."""
    kept = read_checked(folder, key)
    if kept is None:
        return None
    tensors, meta = kept
    prepared = _unpack(tensors, meta, kind)
    record = sources.verified(tensors)
    if prepared is None or record is None:
        return None
    if record is not tensors:  # same contents, other times: next time they need not all be read
        write_checked(folder, key, record, meta)
    return prepared, meta


def _pack(prepared: PreparedData) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return what a cache entry holds; its `checksum` is of examples, labels and names alone."""
    splits = prepared.splits
    tensors = {f"{s}.{t}": getattr(splits[s], own) for s in SPLITS for t, own in _TENSORS.items()}
    meta = {
        "name": prepared.name,
        "class_names": {s: list(splits[s].class_names) for s in SPLITS},
        "group_names": {s: list(splits[s].group_names) for s in SPLITS},
    }
    meta["checksum"] = content_checksum(tensors, meta)
    # How the examples came about is no part of what they are.
    meta["reading"] = asdict(prepared.reading)
    meta["notes"] = list(prepared.notes)
    return tensors, meta


def _unpack(
    tensors: dict[str, Tensor], meta: dict[str, Any], kind: type[ClassData]
) -> PreparedData | None:
    """Return what a cache entry holds; None, with a warning, if that is no prepared data.

    Its checksum says that it is what somebody wrote, not that it was this program.
    """
    try:
        splits = {
            s: ClassExamples(
                class_names=tuple(meta["class_names"][s]),
                group_names=tuple(meta["group_names"][s]),
                **{own: tensors[f"{s}.{t}"] for t, own in _TENSORS.items()},
            )
            for s in SPLITS
        }
        if not isinstance(meta["checksum"], str):
            raise ValueError("its checksum is no text")
        prepared = PreparedData(
            splits,
            str(meta["name"]),
            reading=kind.reading_from(meta.get("reading", {})),
            notes=tuple(str(line) for line in meta.get("notes", ())),
        )
        kind.check(prepared)
    except (ValueError, TypeError, KeyError) as error:
        log.warning("a cache entry holds no prepared data (%s); it is made anew", error)
        return None
    return prepared
