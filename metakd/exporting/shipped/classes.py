"""The classes that a student knows: `classes.npz`, beside its graphs."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from metakd.exporting.shipped.files import checked_file
from metakd.exporting.shipped.reasons import reason

__all__ = ["CLASSES", "read_classes", "write_classes"]

CLASSES = "classes.npz"
MOST_BYTES = 1 << 30
"""Of what it unpacks to: a file may claim more than there is memory for."""


def read_classes(folder: Path, embeds: bool) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return examples [n, …], their classes [n] and the classes' names.

    Args:
        folder: the bundle.
        embeds: the examples are features [n, size] float32; else what the network sees, before it
            is normalised: pixels uint8, ids int32, or rows of a table float64, where NaN is a
            missing value.

    Raises:
        ValueError: the file is damaged, or leads out of the bundle.
        OSError: it cannot be read.
    """
    content = checked_file(folder, CLASSES).read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            if sum(one.file_size for one in packed.infolist()) > MOST_BYTES:
                raise ValueError("it unpacks to more than a GiB")
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            kept, labels = stored["kept"], stored["labels"]
            names = [str(name) for name in stored["names"]]
            if not (isinstance(kept, np.ndarray) and isinstance(labels, np.ndarray)):
                raise ValueError("it holds something else than arrays")
    except Exception as error:  # zlib, zipfile, tokenize and NumPy each raise their own
        raise ValueError(reason(error)) from None
    if labels.dtype != np.int64 or labels.ndim != 1 or not len(labels):
        raise ValueError("its labels are no numbers of classes")
    if labels.shape != kept.shape[:1]:
        raise ValueError("its labels are not those of its examples")
    if not 0 <= labels.min() <= labels.max() < len(names) == len(set(names)):
        raise ValueError("its labels are of other classes")
    wanted = ("float32",) if embeds else ("uint8", "int32", "float64")
    if str(kept.dtype) not in wanted or kept.ndim < 2 or (embeds and kept.ndim != 2):
        raise ValueError(f"its examples are {kept.dtype} of shape {list(kept.shape)}")
    if embeds and not np.isfinite(kept).all():
        raise ValueError("its features are not finite")
    if kept.dtype == np.float64 and np.isinf(kept).any():
        raise ValueError("its rows are not finite")
    return kept, labels, names


def write_classes(folder: Path, kept: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> None:
    """Write the classes: the old file or the new one, never half of it.

    Raises:
        OSError: it cannot be written.
    """
    new = folder / f".{CLASSES}.{os.getpid()}"
    made = False
    try:
        with new.open("xb") as file:  # never through a link that lies there already
            made = True
            np.savez(file, kept=kept, labels=labels, names=np.array(list(names)))
        os.replace(new, folder / CLASSES)
    finally:
        if made:  # else it is somebody else's
            new.unlink(missing_ok=True)
