"""A folder of tensors and JSON: written as a whole or not at all, read without running code."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as tensors_in
from safetensors.torch import save as tensors_as_bytes
from torch import Tensor

from metakd.errors import UserError
from metakd.plain_data import UnreadableError, parse_json, read_text
from metakd.runs.atomic import write_bytes, write_text

__all__ = [
    "FILE",
    "FITTED",
    "WEIGHTS",
    "damaged",
    "read_content",
    "read_tensors",
    "write_folder",
]

FILE = "bundle.json"
"""The file by which a folder is known to hold a learner."""
WEIGHTS, FITTED = "weights.safetensors", "fitted.safetensors"
SCHEMA = 1


def write_folder(
    folder: Path, content: Mapping[str, Any], files: Mapping[str, Mapping[str, Tensor]]
) -> None:
    """Write a folder; one that holds a saved learner and nothing else is replaced.

    Args:
        folder: where; its parents are made.
        content: of the JSON file, to which schema and checksums are added.
        files: tensors by the name of their file.

    Raises:
        UserError: the folder holds something else, or cannot be written.
    """
    folder = folder.expanduser().absolute()
    _check_place(folder)
    new = folder.with_name(f".{folder.name}.{os.getpid()}.new")
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        sums = {name: _write(new / name, tensors) for name, tensors in files.items()}
        whole = {"schema": SCHEMA, **content, "files": sums}
        text = json.dumps(whole, indent=2, ensure_ascii=False, allow_nan=False)
        write_text(new / FILE, text + "\n")
        if folder.exists():
            os.replace(folder, old)
        try:
            os.replace(new, folder)
        except OSError:
            if old.exists():
                os.replace(old, folder)  # keep the old folder
            raise
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        shutil.rmtree(new, ignore_errors=True)
        raise UserError(
            f"'{folder}' cannot be written ({error.strerror or error}); choose another folder"
        ) from error


def _check_place(folder: Path) -> None:
    try:
        inside = {path.name for path in folder.iterdir()} if folder.is_dir() else set[str]()
        # It is replaced as a whole: other files in it would be lost.
        taken = folder.is_file() or (
            bool(inside) and not (FILE in inside and inside <= {FILE, WEIGHTS, FITTED})
        )
    except OSError as error:
        raise UserError(
            f"'{folder}' cannot be read ({error.strerror}); choose another folder"
        ) from error
    if taken:
        raise UserError(f"'{folder}' holds something else; name a folder that is not there yet")


def _write(file: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write tensors; return the file's checksum."""
    content = tensors_as_bytes(
        {k: v.detach().to("cpu", copy=True).contiguous() for k, v in tensors.items()}
    )
    write_bytes(file, content)
    return hashlib.sha256(content).hexdigest()


def read_content(folder: Path) -> dict[str, Any]:
    """Return what a folder's JSON says.

    Raises:
        UserError: it is damaged, or of another version.
    """
    try:
        content = parse_json(read_text(folder / FILE))
    except UnreadableError as error:
        raise damaged(folder / FILE, error) from error
    if not isinstance(content, dict):
        raise damaged(folder / FILE, "it holds no object")
    if content.get("schema") != SCHEMA:
        raise UserError(
            f"'{folder / FILE}' is of schema {content.get('schema')}, this version reads {SCHEMA}"
        )
    return content


def read_tensors(folder: Path, name: str, content: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors of one of a folder's files.

    Args:
        folder: the folder that holds it.
        name: of the file.
        content: the folder's JSON, which lists checksums.

    Raises:
        UserError: it is not there, or damaged.
    """
    listed = content.get("files")
    expected = listed.get(name) if isinstance(listed, dict) else None
    try:
        found = (folder / name).read_bytes()
        if hashlib.sha256(found).hexdigest() != expected:
            raise damaged(folder / name, "its checksum differs")
        return tensors_in(found)
    except OSError as error:
        raise damaged(folder / name, error.strerror or error) from error
    except SafetensorError as error:
        raise damaged(folder / name, error) from error


def damaged(file: Path, why: object) -> UserError:
    """Return the error for a file that cannot be used."""
    reason = " ".join(str(why).split())[:160]
    return UserError(f"'{file}' cannot be used ({reason}); save the learner again")
