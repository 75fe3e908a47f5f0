"""A file of weights: found, read without running code, checked against damage."""

from __future__ import annotations

import hashlib
import json
import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from metakd.errors import UserError, nearest
from metakd.models.card import Card

__all__ = ["WeightsFile", "header", "read_weights"]

_CHECKSUM = "sha256"
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""How files of torch.save began before it wrote archives (torch 1.5 and earlier)."""

_DAMAGE = (
    zipfile.BadZipFile,
    EOFError,
    RuntimeError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
    struct.error,
)
"""What torch.load raises for damaged files; an old one is read as a stream without checks."""


class WeightsFile(NamedTuple):
    """What a file of weights holds.

    Attributes:
        tensors: by name, on the CPU.
        card: what the file says of its input and classes; None: nothing.
        source: the setting and the file, to begin a message with.
    """

    tensors: dict[str, Tensor]
    card: Card | None
    source: str


def read_weights(path: str | Path, what: Literal["student", "teacher"] = "student") -> WeightsFile:
    """Read a file of weights.

    Args:
        path: a .safetensors file, a weights-only .pt file (a state dict, or a mapping that holds
            one under `state_dict` or `model`), or a run's folder.
        what: which of a run's models to take; also names the setting in messages.

    Raises:
        UserError: no such file, a damaged one, or one with more than weights in it.
    """
    setting = f"{what}.checkpoint"
    file = _find(Path(path), what, setting)
    card = None
    if file.suffix == ".safetensors":
        tensors, card = _read_safetensors(file, setting)
    elif file.suffix in (".pt", ".pth"):
        tensors = _read_pt(file, setting)
    else:
        raise UserError(
            f"{setting}: '{file}' is neither a .safetensors nor a .pt file nor a run's folder"
        )
    return WeightsFile(tensors, card, f"{setting}: '{file}'")


def _find(path: Path, what: str, setting: str) -> Path:
    if path.is_dir():
        file = path / "checkpoints" / f"{what}.safetensors"
        if not file.is_file():
            raise UserError(
                f"{setting}: the folder '{path}' holds no checkpoints/{what}.safetensors; "
                "name a finished run's folder or a file"
            )
        return file
    if not path.is_file():
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UserError(f"{setting}: there is no '{path}'." + nearest(path.name, siblings))
    return path


def _unreadable(file: Path, setting: str, error: OSError) -> UserError:
    return UserError(f"{setting}: '{file}' cannot be read: {error.strerror or error}")


def _damaged(file: Path, setting: str, why: object) -> UserError:
    reason = " ".join(str(why).split())[:120]
    return UserError(f"{setting}: '{file}' is damaged ({reason}); take another copy of it")


def _read_safetensors(file: Path, setting: str) -> tuple[dict[str, Tensor], Card | None]:
    try:
        with safe_open(file, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            metadata = opened.metadata() or {}
        expected = metadata.get(_CHECKSUM)
        listed = _listed(file)
        intact = listed is None or hashlib.sha256(file.read_bytes()).hexdigest() == listed
    except SafetensorError as error:
        raise _damaged(file, setting, error) from error
    except OSError as error:
        raise _unreadable(file, setting, error) from error
    if not intact or (expected is not None and expected != _checksum(tensors)):
        raise _damaged(file, setting, "its checksum is wrong")
    try:
        return tensors, Card.from_header(metadata)
    except ValueError as error:
        raise _damaged(file, setting, error) from error


def _listed(file: Path) -> str | None:
    """Return the checksum that a run's manifest lists for one of its checkpoints, if any."""
    manifest = file.with_name("manifest.json")
    if not manifest.is_file():
        return None
    try:
        listed = json.loads(manifest.read_text(encoding="utf-8"))
    except ValueError:
        return None  # a damaged list says nothing about the file
    return listed.get(file.name) if isinstance(listed, dict) else None


def _is_legacy(file: Path) -> bool:
    """Tell whether an old torch wrote the file: no archive, so there are no checksums in it."""
    with file.open("rb") as opened:
        return opened.read(len(_LEGACY)) == _LEGACY


def _read_pt(file: Path, setting: str) -> dict[str, Tensor]:
    try:
        if not _is_legacy(file):
            # torch.load believes a file with a flipped bit; the zip's own checksums find it.
            with zipfile.ZipFile(file) as archive:
                broken = archive.testzip()
            if broken is not None:
                raise _damaged(file, setting, f"the checksum of {broken} is wrong")
        content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "truncated" in str(error):
            raise _damaged(file, setting, "it ends too early") from error
        raise UserError(
            f"{setting}: '{file}' holds more than weights, which could run code; save its "
            "state_dict() alone"
        ) from error
    except _DAMAGE as error:
        raise _damaged(file, setting, error) from error
    except OSError as error:
        raise _unreadable(file, setting, error) from error
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items()
    ):
        raise UserError(
            f"{setting}: '{file}' is no state dict (names and tensors); save state_dict() alone"
        )
    return dict(content)


def header(tensors: Mapping[str, Tensor], card: Card | None = None) -> dict[str, str]:
    """Return what a file's header says of its weights.

    A copy of the file can then be checked alone, and says what its network expects.
    """
    return {_CHECKSUM: _checksum(tensors), **({} if card is None else card.header())}


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
