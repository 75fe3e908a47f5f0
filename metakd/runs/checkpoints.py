"""Checkpoints that survive a kill at any moment; damage is detected by checksums."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from metakd.errors import UserError
from metakd.runs.atomic import replace_file, sync_folder, write_new, write_text

if TYPE_CHECKING:  # torch takes seconds to import; reading a run's status must not
    from torch import Tensor

__all__ = [
    "clean",
    "load_state",
    "load_weights",
    "remove_state",
    "save_state",
    "save_weights",
]

MANIFEST = "manifest.json"
logger = logging.getLogger(__name__)


def save_state(folder: Path, name: str, state: Mapping[str, Any]) -> None:
    """Write a checkpoint so that a kill at any moment leaves a good one.

    `last` becomes `previous` when a new `last` is complete. The manifest knows the new content
    before any file is renamed, so that in between, too, every file's content is in it.

    Args:
        folder: the run's folder of checkpoints.
        name: `last`, `best`, or that of a finished stage.
        state: nested containers of tensors, numbers and strings (what `weights_only` loads).
    """
    import torch

    folder.mkdir(exist_ok=True)  # not the run around it, should that have been removed
    file = f"{name}.pt"
    new = folder / f"{file}.new"
    digest = hashlib.sha256()

    def write(out: BinaryIO) -> None:
        hashing = _Hashing(out, digest)
        try:
            torch.save(dict(state), cast(BinaryIO, hashing))
        except Exception as error:  # raised again; of which kind torch makes it is not said
            if hashing.failure is not None:  # torch hides why (a full disk) behind a message
                raise hashing.failure from error
            raise

    write_new(new, write)
    manifest = _read_manifest(folder)
    _write_manifest(folder, {**manifest, new.name: digest.hexdigest()})
    if name == "last" and (folder / file).exists():
        os.replace(folder / file, folder / "previous.pt")
        if file in manifest:
            manifest["previous.pt"] = manifest[file]
    os.replace(new, folder / file)
    sync_folder(folder)
    manifest.pop(new.name, None)
    _write_manifest(folder, {**manifest, file: digest.hexdigest()})


def load_state(folder: Path, name: str) -> dict[str, Any] | None:
    """Read a checkpoint onto the CPU, checked.

    For `last` the previous one takes the place of a missing or damaged one, with a warning.

    Args:
        folder: the run's folder of checkpoints.
        name: `last`, `best`, or that of a finished stage.

    Returns:
        the state, or None if there is no good one.
    """
    candidates = ["last.pt", "previous.pt"] if name == "last" else [f"{name}.pt"]
    damaged: list[str] = []
    for file in candidates:
        path = folder / file
        if not path.exists():
            continue
        state = _read_state(path)
        if state is not None:
            if damaged:
                logger.warning("%s is damaged; going on from %s", damaged[0], path)
            return state
        damaged.append(str(path))
    if damaged:
        logger.warning("%s cannot be used: damaged", " and ".join(damaged))
    return None


def remove_state(folder: Path, name: str) -> None:
    """Remove a checkpoint and its entry in the manifest; does nothing if it is not there."""
    file = f"{name}.pt"
    manifest = _read_manifest(folder)
    if manifest.pop(file, None) is not None:
        _write_manifest(folder, manifest)
    (folder / file).unlink(missing_ok=True)


def clean(folder: Path) -> None:
    """Remove what a kill in the middle of a save left: half-written files and their entries."""
    left = [*folder.glob("*.new"), *folder.glob(".*.tmp")]
    for path in left:
        path.unlink(missing_ok=True)
    manifest = _read_manifest(folder)
    # An entry of a renamed file stays under its old name until the manifest is written again.
    kept = {k: v for k, v in manifest.items() if not k.endswith(".new")}
    for path in sorted(folder.glob("*.pt")):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        # Without a manifest, sound files found a new one: those that it lacked would count as rot.
        if digest in manifest.values() or (not manifest and _read_state(path) is not None):
            kept[path.name] = digest
    if kept != manifest:
        _write_manifest(folder, kept)


def save_weights(
    folder: Path,
    name: str,
    weights: Mapping[str, Tensor],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write `<name>.safetensors` atomically and enter it in the manifest.

    Args:
        folder: the run's folder of checkpoints.
        name: `student`, `teacher`, `student_alone`.
        weights: a state dict; tensors that share memory are written each in full.
        metadata: words stored in the file beside the tensors.
    """
    from safetensors.torch import save

    folder.mkdir(exist_ok=True)  # not the run around it, should that have been removed
    separate = {k: v.detach().to("cpu", copy=True).contiguous() for k, v in weights.items()}
    content = save(separate, metadata=dict(metadata) if metadata else None)

    def write(out: BinaryIO) -> None:
        out.write(content)

    file = f"{name}.safetensors"
    manifest = _read_manifest(folder)
    digest = hashlib.sha256(content).hexdigest()
    # The new content is known before it is there; until then the old entry holds.
    _write_manifest(folder, {**manifest, f"{file}.new": digest})
    replace_file(folder / file, write)
    manifest.pop(f"{file}.new", None)
    _write_manifest(folder, {**manifest, file: digest})


def load_weights(folder: Path, name: str) -> dict[str, Tensor]:
    """Read `<name>.safetensors` onto the CPU, checked against the manifest.

    Raises:
        UserError: it is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    path = folder / f"{name}.safetensors"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"'{path}' cannot be read; choose another run or train again") from error
    known = set(_read_manifest(folder).values())
    if known and hashlib.sha256(content).hexdigest() not in known:
        raise UserError(f"'{path}' is damaged (checksum differs); choose another or train again")
    try:
        return load(content)
    except SafetensorError as error:
        raise UserError(f"'{path}' is damaged ({error}); choose another or train again") from error


def _read_state(path: Path) -> dict[str, Any] | None:
    """Return the content of a checkpoint, or None if it is damaged."""
    import torch

    known = set(_read_manifest(path.parent).values())
    try:
        if known:
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() not in known:
                    return None
        # Without a manifest the archive's own checksums tell; torch.load looks at none.
        elif zipfile.ZipFile(path).testzip() is not None:
            return None
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile):
        return None
    return state


def _read_manifest(folder: Path) -> dict[str, str]:
    """Return file name -> SHA-256; empty if there is no readable manifest."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        logger.warning("%s cannot be read (%s); checkpoints are checked without it", path, error)
        return {}
    return {str(k): str(v) for k, v in manifest.items()} if isinstance(manifest, dict) else {}


def _write_manifest(folder: Path, manifest: Mapping[str, str]) -> None:
    write_text(folder / MANIFEST, json.dumps(dict(sorted(manifest.items())), indent=2) + "\n")


class _Hashing:
    """A file to write to that takes the checksum of what passes."""

    def __init__(self, out: BinaryIO, digest: hashlib._Hash) -> None:
        self._out = out
        self._digest = digest
        self.failure: OSError | None = None

    def write(self, content: bytes) -> int:
        self._digest.update(content)
        try:
            return self._out.write(content)
        except OSError as error:
            self.failure = error
            raise

    def flush(self) -> None:
        self._out.flush()
