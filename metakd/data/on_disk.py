"""Tensors that are too large for memory: they lie in files, and are mapped from there.

A mapped tensor is used as any other one. Pages that were touched can be dropped at any time and
are read again when they are needed; `touched` has that done before they add up.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import NamedTuple
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from metakd.errors import UserError

__all__ = [
    "bytes_of",
    "is_large",
    "is_mapped",
    "joined",
    "large_in",
    "read_mapped",
    "room",
    "taken",
    "touched",
    "write_tensors",
]

_DROP = 64 * 2**20  # bytes that are touched before their pages are dropped
_ROWS = 512  # examples that are copied together
_TYPES = {
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}
"""Types of tensors that are kept, as safetensors calls them."""


class _Large(NamedTuple):
    folder: Path
    most: float  # bytes


_large: ContextVar[_Large | None] = ContextVar("large", default=None)


class _Map(mmap.mmap):
    """The bytes of a file in `folder`, with the count of those that were touched."""

    folder: Path
    touched = 0


_maps: WeakValueDictionary[int, _Map] = WeakValueDictionary()
"""By the address of a tensor's storage."""


@contextmanager
def large_in(folder: Path, most: float | None) -> Iterator[None]:
    """Keep tensors of examples of more than `most` bytes in files while the block runs.

    Args:
        folder: of nameless files, which are gone with the tensors.
        most: bytes; None: everything is kept in memory.
    """
    token = _large.set(None if most is None else _Large(folder, most))
    try:
        yield
    finally:
        _large.reset(token)


def is_large(size: int) -> bool:
    """Tell whether a tensor of `size` bytes is kept in a file."""
    large = _large.get()
    return large is not None and size > large.most


def is_mapped(tensor: Tensor) -> bool:
    """Tell whether a tensor lies in a file."""
    return tensor.untyped_storage().data_ptr() in _maps


def room(
    shape: tuple[int, ...], dtype: torch.dtype = torch.uint8, device: torch.device | str = "cpu"
) -> Tensor:
    """Return a tensor to write into; on a CPU in a nameless file where it is large (`large_in`).

    Raises:
        UserError: the disk is full.
    """
    large = _large.get()
    if large is not None and is_large(math.prod(shape) * dtype.itemsize):
        return _in_file(shape, dtype, large.folder)
    return torch.empty(shape, dtype=dtype, device=device)


def _in_file(shape: tuple[int, ...], dtype: torch.dtype, folder: Path) -> Tensor:
    size = math.prod(shape) * dtype.itemsize
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)  # a disk full later would be a signal
            else:
                file.truncate(size)
            content = _Map(file.fileno(), size)
    except OSError as error:
        raise UserError(
            f"{size / 2**30:.3g} GiB of prepared data do not fit into memory, and the cache "
            f"{folder} cannot take them ({error.strerror}): make room there, or set METAKD_CACHE"
        ) from error
    return _tensor(content, folder).view(dtype).view(shape)


def _tensor(content: _Map, folder: Path) -> Tensor:
    """Return the bytes of a map, and know them by their address."""
    content.folder = folder
    tensor = torch.frombuffer(content, dtype=torch.uint8)
    _maps[tensor.untyped_storage().data_ptr()] = content
    return tensor


def touched(tensor: Tensor, size: int) -> None:
    """Count `size` bytes of a tensor that were read or written; drop pages when they add up."""
    content = _maps.get(tensor.untyped_storage().data_ptr())
    if content is None:
        return
    content.touched += size
    if content.touched >= _DROP:
        content.touched = 0
        if hasattr(mmap, "MADV_DONTNEED"):
            content.madvise(mmap.MADV_DONTNEED)


def taken(examples: Tensor, index: Tensor, *, keep: bool = False) -> Tensor:
    """Return `examples[index]`.

    Args:
        examples: [n, ...].
        index: [m] int64 positions, or [n] bool.
        keep: what is taken of a mapped tensor is mapped, too.
    """
    content = _maps.get(examples.untyped_storage().data_ptr())
    if content is None:
        return examples[index]
    rows = index.nonzero().flatten() if index.dtype == torch.bool else index
    if not keep or not len(rows):
        found = examples[rows]
        touched(examples, found.nbytes)
        return found
    found = _in_file((len(rows), *examples.shape[1:]), examples.dtype, content.folder)
    for part, at in zip(found.split(_ROWS), rows.split(_ROWS), strict=True):
        part.copy_(examples[at])
        touched(examples, part.nbytes)
        touched(found, part.nbytes)
    return found


def joined(
    parts: Iterable[Tensor],
    shape: tuple[int, ...],
    dtype: torch.dtype = torch.uint8,
    beside: Tensor | None = None,
) -> Tensor:
    """Return parts on the CPU one after another, of which only one need be in memory at a time.

    Args:
        parts: [n, ...] each.
        shape: of the whole.
        dtype: of the whole.
        beside: a mapped tensor, beside which the whole is mapped, too; else as in `room`.

    Raises:
        UserError: the disk is full.
    """
    content = None if beside is None else _maps.get(beside.untyped_storage().data_ptr())
    whole = room(shape, dtype) if content is None else _in_file(shape, dtype, content.folder)
    at = 0
    for part in parts:
        whole[at : at + len(part)] = part
        touched(whole, part.nbytes)
        at += len(part)
    return whole


def bytes_of(tensor: Tensor) -> Iterator[memoryview]:
    """Return the bytes of a tensor on the CPU, in parts."""
    for part in tensor.reshape(-1).view(torch.uint8).split(_DROP):
        yield part.numpy().data
        touched(tensor, len(part))


def write_tensors(
    tensors: Mapping[str, Tensor], path: str | Path, metadata: Mapping[str, str]
) -> None:
    """Write a file of safetensors' format; of mapped tensors little is in memory at a time.

    Tensors may share memory, which the library's own function refuses.

    Raises:
        OSError: it cannot be written.
    """
    called = {dtype: name for name, dtype in _TYPES.items()}
    names = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))  # aligned
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    at = 0
    for name in names:
        tensor = tensors[name]
        place = [at, at := at + tensor.nbytes]
        header[name] = {
            "dtype": called[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": place,
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            for part in bytes_of(tensors[name]):
                file.write(part)


def read_mapped(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a safetensors file, mapped, and its metadata.

    Raises:
        OSError, ValueError, KeyError, TypeError, RuntimeError: it cannot be read.
    """
    with open(path, "rb") as file:
        length = min(int.from_bytes(file.read(8), "little"), path.stat().st_size)
        header = json.loads(file.read(length))
        raw = _tensor(_Map(file.fileno(), 0, access=mmap.ACCESS_COPY), path.parent)
    metadata = header.pop("__metadata__")
    tensors = {}
    for name, entry in header.items():
        first, end = entry["data_offsets"]
        flat = raw[8 + length + first : 8 + length + end]
        tensors[name] = flat.view(_TYPES[entry["dtype"]]).view(entry["shape"])
    return tensors, metadata
