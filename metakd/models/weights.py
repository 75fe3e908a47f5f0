"""Weights on disk: read without running code, checked before they are used."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from metakd.errors import UserError, nearest
from metakd.models.normalization import has_batchnorm, set_running_statistics

__all__ = ["header", "load_weights"]

_BACKBONE = "backbone."
_HEAD = "head."
_TO_BACKBONE = re.compile(r"((?:\w+\.)*?)backbone\.")
_STATISTICS = (".running_mean", ".running_var", ".num_batches_tracked")
_CHECKSUM = "sha256"


def load_weights(
    network: nn.Module,
    path: str | Path,
    what: Literal["student", "teacher"] = "student",
    *,
    skip_head: bool = False,
) -> None:
    """Put the weights of a file into a network; the network is unchanged if they do not fit.

    The file may hold a `Network` (names `backbone.…` and `head.…`), a learner around one (a run's
    student) or a backbone alone; `network` is a `Network` or a backbone. The file also decides
    whether batch norm keeps running statistics: a network that was saved without them has none
    afterwards.

    Args:
        network: a `Network`, or a backbone (then a head in the file is left out).
        path: a .safetensors file, a weights-only .pt file (a state dict, or a mapping that holds
            one under `state_dict` or `model`), or a run's folder.
        what: which of a run's models to take; also names the setting in messages.
        skip_head: leave the head of `network` as it is, whatever head the file holds.

    Raises:
        UserError: no such file, a damaged one, one with more than weights in it, or one that was
            saved from another architecture.
    """
    setting = f"{what}.checkpoint"
    file = _find(Path(path), what, setting)
    if file.suffix == ".safetensors":
        found = _read_safetensors(file, setting)
    elif file.suffix in (".pt", ".pth"):
        found = _read_pt(file, setting)
    else:
        raise UserError(
            f"{setting}: '{file}' is neither a .safetensors nor a .pt file nor a run's folder"
        )
    _fill(network, found, skip_head, f"{setting}: '{file}'")


def _fill(network: nn.Module, found: dict[str, Tensor], skip_head: bool, source: str) -> None:
    own = network.state_dict()
    backbone, head = _split(found)
    if any(k.startswith(_BACKBONE) for k in own):
        found = {_BACKBONE + k: v for k, v in backbone.items()}
        if skip_head:
            head = _under(_HEAD, own)
        found |= {_HEAD + k: v for k, v in head.items()}
    else:
        found = backbone
    _check_same(own, found, source)
    if has_batchnorm(network):
        set_running_statistics(network, any(k.endswith(_STATISTICS) for k in found))
    network.load_state_dict(found)


def _split(found: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the weights of backbone and head, under the names that they have there.

    A run's student is a whole learner: it may hold the network one level down, and more.
    """
    prefixes = {m.group(1) for m in map(_TO_BACKBONE.match, found) if m is not None}
    if not prefixes:
        return dict(found), {}
    prefix = min(prefixes, key=len)
    return _under(prefix + _BACKBONE, found), _under(prefix + _HEAD, found)


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _check_same(own: Mapping[str, Tensor], found: Mapping[str, Tensor], source: str) -> None:
    """Raise UserError at the first name, in the network's order, that does not match."""
    blame = f"{source} was saved from another architecture:"
    for name, tensor in own.items():
        if name not in found:
            if name.endswith(_STATISTICS):
                continue
            if name.startswith(_HEAD) and not any(k.startswith(_HEAD) for k in found):
                raise UserError(f"{source} holds a backbone alone; a head is needed here, too")
            raise UserError(f"{blame} it has no '{name}' {list(tensor.shape)}")
        if found[name].shape != tensor.shape:
            raise UserError(
                f"{blame} '{name}' is {list(found[name].shape)} there and "
                f"{list(tensor.shape)} in the network"
            )
    for name, tensor in found.items():
        if name not in own and not name.endswith(_STATISTICS):
            raise UserError(f"{blame} the network has no '{name}' {list(tensor.shape)}")


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


def _read_safetensors(file: Path, setting: str) -> dict[str, Tensor]:
    try:
        with safe_open(file, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            expected = (opened.metadata() or {}).get(_CHECKSUM)
        listed = _listed(file)
        intact = listed is None or hashlib.sha256(file.read_bytes()).hexdigest() == listed
    except SafetensorError as error:
        raise _damaged(file, setting, error) from error
    except OSError as error:
        raise _unreadable(file, setting, error) from error
    if not intact or (expected is not None and expected != _checksum(tensors)):
        raise _damaged(file, setting, "its checksum is wrong")
    return tensors


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


def _read_pt(file: Path, setting: str) -> dict[str, Tensor]:
    # torch.load believes a file with a flipped bit; the zip's own checksums find it.
    try:
        with zipfile.ZipFile(file) as archive:
            broken = archive.testzip()
        if broken is not None:
            raise _damaged(file, setting, f"the checksum of {broken} is wrong")
        content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{setting}: '{file}' holds more than weights, which could run code; save its "
            "state_dict() alone"
        ) from error
    except (zipfile.BadZipFile, EOFError, RuntimeError) as error:
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


def header(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Return what a file's header says of its weights: a copy of it can then be checked alone."""
    return {_CHECKSUM: _checksum(tensors)}


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
