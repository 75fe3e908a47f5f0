from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
import torch

from metakd.data.cache import content_checksum, read_checked, write_checked

KEY = '{"any": "text/with:signs"}'


def tensors() -> dict[str, torch.Tensor]:
    shared = torch.arange(6)
    return {
        "bytes": torch.arange(5000, dtype=torch.int32).to(torch.uint8).view(2, 2500),
        "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
        "flags": torch.tensor([True, False]),
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(7.0),
        "a": shared,
        "b": shared,
        "strided": torch.arange(12).view(3, 4).t(),
    }


def entry(folder: Path) -> Path:
    (path,) = folder.glob("*")
    return path


def test_reads_back_what_was_written(tmp_path: Path) -> None:
    assert read_checked(tmp_path / "new", KEY) is None
    assert write_checked(tmp_path / "new", KEY, tensors(), {"é": [1, "x"]})
    read = read_checked(tmp_path / "new", KEY)
    assert read is not None
    assert read[1] == {"é": [1, "x"]}
    assert read[0].keys() == tensors().keys()
    for name, tensor in tensors().items():
        assert read[0][name].dtype == tensor.dtype
        assert read[0][name].equal(tensor)
    assert read_checked(tmp_path / "new", KEY + " ") is None
    assert entry(tmp_path / "new").suffix == ".safetensors"  # no temporary file is left


def test_content_checksum_sees_names_types_shapes_values_and_meta() -> None:
    base = {"a": torch.zeros(4, dtype=torch.int32)}
    others = [
        {"b": torch.zeros(4, dtype=torch.int32)},
        {"a": torch.zeros(4, dtype=torch.float32)},
        {"a": torch.zeros(2, 2, dtype=torch.int32)},
        {"a": torch.tensor([0, 0, 0, 1], dtype=torch.int32)},
    ]
    checksums = {content_checksum(t, {}) for t in [base, *others]}
    checksums.add(content_checksum(base, {"x": 1}))
    assert len(checksums) == 6


@pytest.mark.parametrize("where", [0.02, 0.1, 0.5, 0.999])
def test_a_flipped_bit_is_noticed(tmp_path: Path, where: float, caplog) -> None:
    write_checked(tmp_path, KEY, tensors(), {"x": 1})
    path = entry(tmp_path)
    content = bytearray(path.read_bytes())
    content[int(where * len(content))] ^= 0x10
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert read_checked(tmp_path, KEY) is None
    assert str(path) in caplog.text


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_entry_is_not_believed(tmp_path: Path, share: float, caplog) -> None:
    write_checked(tmp_path, KEY, tensors(), {})
    path = entry(tmp_path)
    os.truncate(path, int(share * path.stat().st_size))
    with caplog.at_level(logging.WARNING):
        assert read_checked(tmp_path, KEY) is None
    assert "made anew" in caplog.text
    assert write_checked(tmp_path, KEY, tensors(), {})
    assert read_checked(tmp_path, KEY) is not None


def test_an_entry_under_another_name_is_not_believed(tmp_path: Path) -> None:
    write_checked(tmp_path, KEY, tensors(), {})
    first = entry(tmp_path)
    write_checked(tmp_path, "other", tensors(), {})
    second = next(p for p in tmp_path.glob("*") if p != first)
    second.write_bytes(first.read_bytes())
    assert read_checked(tmp_path, "other") is None


def test_goes_on_without_a_folder_that_cannot_be_written(tmp_path: Path, caplog) -> None:
    (tmp_path / "file").write_text("not a folder")
    with caplog.at_level(logging.WARNING):
        assert not write_checked(tmp_path / "file" / "cache", KEY, tensors(), {})
        assert read_checked(tmp_path / "file" / "cache", KEY) is None
    assert "going on without" in caplog.text


def test_a_failed_write_leaves_the_old_entry_and_no_rest(tmp_path: Path, monkeypatch) -> None:
    write_checked(tmp_path, KEY, {"a": torch.zeros(1)}, {})

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("metakd.data.cache.os.replace", full)
    assert not write_checked(tmp_path, KEY, {"a": torch.ones(1)}, {})
    monkeypatch.undo()
    read = read_checked(tmp_path, KEY)
    assert read is not None
    assert read[0]["a"].item() == 0
    assert entry(tmp_path).exists()
