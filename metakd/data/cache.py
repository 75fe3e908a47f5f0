"""Tensors kept on disk under a key, checked when they are read back.

One file an entry, so that replacing it is one atomic step: safetensors, which is read by memory
mapping, with the key, whatever else is to be known and a SHA-256 of it all in its header.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from metakd.data.on_disk import bytes_of, is_large, read_mapped, write_tensors

__all__ = ["content_checksum", "read_checked", "write_checked"]

log = logging.getLogger(__name__)


def content_checksum(tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> str:
    """Return the SHA-256 (hex) of names, types, shapes and values of `tensors` and of `meta`."""
    digest = hashlib.sha256(json.dumps(meta, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        for part in bytes_of(tensor):
            digest.update(part)
    return digest.hexdigest()


def _to_disk(path: Path) -> None:
    """Wait until the file or folder `path` is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _path(folder: Path, key: str) -> Path:
    return folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.safetensors"


def read_checked(folder: Path, key: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Return the tensors and the meta data kept under `key`, or None.

    None also if the entry is truncated or any of its bits has changed; a warning says so and the
    caller makes it anew. The tensors are mapped from the file; do not write into them.

    Args:
        folder: of the cache; need not exist.
        key: any text; decides the file's name.
    """
    path = _path(folder, key)
    try:
        tensors, metadata = _content(path)
        header = json.loads(metadata["metakd"])
        checked = {"key": header["key"], "meta": header["meta"]}
        intact = header["sha256"] == content_checksum(tensors, checked) and header["key"] == key
        intact = intact and isinstance(header["meta"], dict)
    except FileNotFoundError:
        return None
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        log.warning("cache entry %s cannot be read (%s); it is made anew", path, error)
        return None
    if not intact:
        log.warning("cache entry %s does not match its checksum; it is made anew", path)
        return None
    meta: dict[str, Any] = header["meta"]
    return tensors, meta


def _content(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if is_large(path.stat().st_size):
        return read_mapped(path)
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in sorted(file.keys())}, file.metadata() or {}


def write_checked(
    folder: Path, key: str, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]
) -> bool:
    """Keep `tensors` and `meta` (plain JSON values) under `key`, atomically.

    A folder that cannot be written or a full disk is no error: a warning says so and the program
    goes on without the cache.

    Returns:
        whether the entry was written.
    """
    checked = {"key": key, "meta": dict(meta)}
    kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header = json.dumps({**checked, "sha256": content_checksum(kept, checked)})
    path = _path(folder, key)
    temporary: str | None = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=path.stem, suffix=".part")
        os.close(handle)
        write_tensors(kept, temporary, {"metakd": header})
        _to_disk(Path(temporary))
        os.replace(temporary, path)
        _to_disk(folder)
    except OSError as error:
        log.warning("the cache %s cannot be written (%s); going on without it", folder, error)
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        return False
    return True
