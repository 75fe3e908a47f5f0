"""The files that data is prepared from, and whether they are still those that were read.

Paths, sizes and times do not tell: two folders with the same name relative to where one works can
hold files of equal names, sizes and times (archives keep times), and a file can be written over
with its old time put back. So paths are resolved, and a cache entry keeps a hash of each file.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from metakd.errors import UserError

__all__ = ["SourceFiles"]

log = logging.getLogger(__name__)

_BLOCK = 1 << 16
_BLOCKS = 4  # of a large file's sample: the first, the last and some between
_SAMPLED = 16  # files whose sample is read again each time: at most 4 MiB in all
_GROUP = 64  # files that a thread takes at a time
_LONG = 1 << 31  # bytes of touched files from which on it is said that they are read again
_STAMPS, _HASHES, _SAMPLES = "sources.stamps", "sources.hashes", "sources.samples"


class SourceFiles:
    """Files as they are now.

    Args:
        paths: of the files, in an order that does not depend on the file system.

    Raises:
        UserError: one of them is not there.
    """

    def __init__(self, paths: Sequence[str | Path]) -> None:
        # Of tens of thousands of files: what pathlib takes for each adds up.
        self._paths = [os.fspath(path) for path in paths]
        split = [os.path.split(path) for path in self._paths]
        folders = {folder: os.path.realpath(folder) for folder in {folder for folder, _ in split}}
        self._resolved = [os.path.join(folders[folder], name) for folder, name in split]
        stamps = [_stamp(path) for path in self._paths]
        self._stamps = torch.tensor(stamps, dtype=torch.int64).reshape(len(stamps), 4)

    def __eq__(self, other: object) -> bool:
        """Whether nothing has happened to any file in between."""
        if not isinstance(other, SourceFiles):
            return NotImplemented
        return self._resolved == other._resolved and self._stamps.equal(other._stamps)

    __hash__ = None  # type: ignore[assignment]

    def key(self) -> str:
        """Return a hash of the files' places and sizes."""
        digest = hashlib.sha256()
        for path, size in zip(self._resolved, self._stamps[:, 0].tolist(), strict=True):
            digest.update(f"{path}\0{size}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def record(self) -> dict[str, Tensor]:
        """Read all files and return what tells later whether they are the same.

        Returns:
            stamps [n, 4] int64: size in bytes, times of change of content and of status in
            nanoseconds, inode; hashes and samples [n, 16] uint8: of the content and of some blocks.
        """
        both = _each(_hash_all, self._paths)
        return {_STAMPS: self._stamps, _HASHES: both[:, :16], _SAMPLES: both[:, 16:]}

    def verified(self, kept: dict[str, Tensor]) -> dict[str, Tensor] | None:
        """Compare with what `record` returned for files of the same places and sizes.

        Files with other times or inodes are read as a whole, of the others a sample.

        Returns:
            `kept` itself where no file was touched; with the times as they are now where contents
            are the same; None where they differ, or `kept` is no such record.
        """
        count = len(self._paths)
        wanted = {
            _STAMPS: (4, torch.int64),
            _HASHES: (16, torch.uint8),
            _SAMPLES: (16, torch.uint8),
        }
        for name, (width, dtype) in wanted.items():
            if name not in kept or kept[name].shape != (count, width) or kept[name].dtype != dtype:
                return None
        touched = (kept[_STAMPS] != self._stamps).any(dim=1).nonzero().flatten().tolist()
        size = int(self._stamps[touched, 0].sum())
        if size >= _LONG:
            log.warning(
                "%d files were touched since they were prepared; reading %.1f GB to see whether "
                "they have changed", len(touched), size / 1e9,
            )  # fmt: skip
        whole = _each(_hash_all, [self._paths[i] for i in touched])[:, :16]
        some = [i for i in _some(count) if i not in set(touched)]
        sample = _each(_hash_some, [self._paths[i] for i in some])[:, 16:]
        if not whole.equal(kept[_HASHES][touched]) or not sample.equal(kept[_SAMPLES][some]):
            return None
        return {**kept, _STAMPS: self._stamps} if touched else kept


def _stamp(path: str) -> tuple[int, int, int, int]:
    try:
        status = os.stat(path)
    except OSError as error:
        raise UserError(f"the file {path} cannot be read ({error.strerror})") from error
    # Inodes are unsigned; what does not fit is cut off, which at worst means reading the file.
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino & (2**63 - 1)


def _some(count: int) -> list[int]:
    """Return which files are looked into: the first, the last and random ones, others each time."""
    if count <= _SAMPLED:
        return list(range(count))
    between = random.Random().sample(range(1, count - 1), _SAMPLED - 2)  # not the global stream
    return [0, *between, count - 1]


def _each(hash_of: Callable[[BinaryIO], bytes], paths: Sequence[str]) -> Tensor:
    """Return what `hash_of` says of each file, [files, 32] uint8."""

    def of_group(start: int) -> bytes:
        found = []
        for path in paths[start : start + _GROUP]:
            try:
                with open(path, "rb") as file:
                    found.append(hash_of(file))
            except OSError:
                found.append(bytes(32))  # what reads it next says so, or leaves it out
        return b"".join(found)

    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as threads:
        content = bytearray(b"".join(threads.map(of_group, range(0, len(paths), _GROUP))))
    if not content:
        return torch.empty(0, 32, dtype=torch.uint8)
    return torch.frombuffer(content, dtype=torch.uint8).reshape(-1, 32)


def _hash_all(file: BinaryIO) -> bytes:
    """Return the hash of the content and that of the sample, 16 bytes each."""
    start = file.read(_BLOCKS * _BLOCK)
    digest = hashlib.blake2b(start, digest_size=16)
    if len(start) <= _BLOCK:  # the sample of a small file is all of it
        return 2 * digest.digest()
    if len(start) < _BLOCKS * _BLOCK:  # that was all of it, and it need not be read once more
        return digest.digest() + _hash_some(io.BytesIO(start))[16:]
    while chunk := file.read(16 * _BLOCK):
        digest.update(chunk)
    return digest.digest() + _hash_some(file)[16:]


def _hash_some(file: BinaryIO) -> bytes:
    """Return 16 bytes of nothing and the hash of blocks of the file, the same ones each time."""
    digest = hashlib.blake2b(digest_size=16)
    last = max(file.seek(0, os.SEEK_END) - _BLOCK, 0)
    for i in range(_BLOCKS if last else 1):
        file.seek(last * i // (_BLOCKS - 1))
        digest.update(file.read(_BLOCK))
    return bytes(16) + digest.digest()
