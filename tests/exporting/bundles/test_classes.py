"""`classes.npz`: what is kept comes back, and damage of any kind is one ValueError."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metakd.exporting.shipped.classes import CLASSES, read_classes, write_classes

LABELS, NAMES = np.array([0, 1], np.int64), ["a", "b"]


@pytest.mark.parametrize(
    ("kept", "embeds"),
    [
        (np.arange(6, dtype=np.float32).reshape(2, 3), True),
        (np.arange(8, dtype=np.uint8).reshape(2, 1, 2, 2), False),
        (np.arange(6, dtype=np.int32).reshape(2, 3), False),
        (np.array([[0.5, np.nan], [1.0, 2.0]]), False),  # rows of a table; one value is missing
    ],
)
def test_what_is_kept_comes_back(tmp_path: Path, kept: np.ndarray, embeds: bool) -> None:
    write_classes(tmp_path, kept, LABELS, NAMES)
    found, labels, names = read_classes(tmp_path, embeds)
    assert found.dtype == kept.dtype
    assert np.array_equal(found, kept, equal_nan=embeds or kept.dtype == np.float64)
    assert (labels.tolist(), names) == ([0, 1], NAMES)
    if kept.dtype == np.float64:
        write_classes(tmp_path, np.full_like(kept, np.inf), LABELS, NAMES)
        with pytest.raises(ValueError, match="not finite"):
            read_classes(tmp_path, embeds)
        with pytest.raises(ValueError, match="float64"):
            read_classes(tmp_path, True)


def packed(**members: bytes | np.ndarray) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            array = io.BytesIO()
            if isinstance(content, np.ndarray):
                np.save(array, content, allow_pickle=False)
            archive.writestr(
                f"{name}.npy", content if isinstance(content, bytes) else array.getvalue()
            )
    return file.getvalue()


def header(text: str) -> bytes:
    """A file of NumPy's with this header and nothing after it."""
    content = text.encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(content).to_bytes(2, "little") + content


KEPT: dict[str, Any] = {"kept": np.zeros((2, 3), np.float32), "labels": LABELS}
KEPT |= {"names": np.array(NAMES)}


def broken_stream() -> bytes:
    """A member whose compressed bytes are none."""
    whole = bytearray(packed(**KEPT))
    at = whole.index(b"kept.npy") + len("kept.npy")
    whole[at : at + 20] = b"\xff" * 20
    return bytes(whole)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        broken_stream(),
        packed(**KEPT | {"kept": header("{'descr': '<f4', 'fortran_order': (")}),
        packed(
            **KEPT
            | {"kept": header(f"{{'descr': '<f4', 'fortran_order': 0, 'shape': ({9**30},)}}")}
        ),
        packed(**KEPT | {"kept": header("{'descr': 3, 'fortran_order': False, 'shape': (2, 3)}")}),
        packed(
            **KEPT | {"kept": header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 3)}")}
        ),
        packed(
            **KEPT
            | {"kept": header(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({9**30},)}}")}
        ),
        packed(**KEPT | {"kept": b"no array"}),
        packed(**KEPT | {"kept": np.array(1, np.float32), "labels": np.array(0)}),
        packed(**KEPT | {"labels": np.zeros((2, 3), np.int64)}),
        packed(**KEPT | {"names": np.array("a")}),
    ],
)
def test_damage_is_one_kind_of_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / CLASSES).write_bytes(content)
    with pytest.raises(ValueError, match=r"^\S.*$") as found:
        read_classes(tmp_path, True)
    assert type(found.value) is ValueError
    assert "\n" not in str(found.value)
