"""Embeddings of a teacher trained here: what is kept, and that a hit is the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from metakd.data.on_disk import is_mapped
from metakd.stages import kept_embeddings
from metakd.stages.kept_embeddings import KeptEmbeddings
from metakd.stages.recorder import Recorder


def made(value: float) -> Callable[[Tensor], Tensor]:
    return lambda index: torch.stack([index.float(), torch.full((len(index),), value)], dim=1)


def kept(folder: Path, said: list[str] | None = None) -> KeptEmbeddings:
    recorder = Recorder()
    recorder.say = [].append if said is None else said.append  # type: ignore[method-assign]
    return KeptEmbeddings(
        {"weights": "w", "augment": ["flip"]},
        folder,
        recorder,
        torch.device("cpu"),
        4,
        by_answers=True,
    )


def test_only_what_takes_long_and_fits_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = [made(0.0), made(1.0)]
    assert kept_embeddings.WORTH_S == 10.0
    assert kept(tmp_path).views("train", 20, views) is None  # it is done at once
    monkeypatch.setattr(kept_embeddings, "WORTH_S", 0.0)
    monkeypatch.setattr(kept_embeddings, "SHARE_OF_DISK", 0.0)
    assert kept(tmp_path).views("train", 20, views) is None
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(kept_embeddings, "SHARE_OF_DISK", 0.5)
    said: list[str] = []
    found = kept(tmp_path, said).views("train", 20, views)
    assert found is not None
    assert "20 train examples in 2 views are computed once and kept" in said[0]
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
    monkeypatch.setattr(kept_embeddings, "WORTH_S", 1e9)  # what is there is read all the same
    again = kept(tmp_path, said).views("train", 20, views)
    assert again is not None
    assert said[1:] == ["teacher: embeddings of 20 train examples in 2 views: taken from the cache"]
    for one, other, make in zip(found, again, views, strict=True):
        assert torch.equal(one, other)
        assert torch.equal(one, make(torch.arange(20)))


def test_another_answer_is_no_hit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the reason is: the key's other content is the same."""
    monkeypatch.setattr(kept_embeddings, "WORTH_S", 0.0)
    kept(tmp_path).views("train", 20, [made(1.0)])
    other = kept(tmp_path).views("train", 20, [made(1.0 + 2**-23)])
    assert other is not None
    assert (other[0][:, 1] > 1.0).all()
    assert len(list(tmp_path.glob("*.safetensors"))) == 2


def test_a_large_table_lies_in_a_file_while_it_is_made_and_when_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_embeddings, "WORTH_S", 0.0)
    monkeypatch.setattr(kept_embeddings, "CPU_BUDGET", 100)  # bytes
    order = torch.arange(20).flip(0)
    with monkeypatch.context() as patch:
        patch.setattr(kept_embeddings, "write_checked", lambda *_: False)
        (found,) = kept(tmp_path).views("train", 20, [made(1.0)], order) or []
        assert is_mapped(found)
        assert torch.equal(found, made(1.0)(torch.arange(20)))
    for _ in range(2):  # made, then read
        (found,) = kept(tmp_path).views("train", 20, [made(1.0)], order) or []
        assert is_mapped(found)
        assert torch.equal(found, made(1.0)(torch.arange(20)))
    assert len(list(tmp_path.glob("*.safetensors"))) == 1


def test_a_table_of_another_length_is_no_hit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def constant(index: Tensor) -> Tensor:
        return torch.ones(len(index), 2)

    monkeypatch.setattr(kept_embeddings, "WORTH_S", 0.0)
    for count in (20, 24, 20):
        (found,) = kept(tmp_path).views("train", count, [constant]) or []
        assert len(found) == count
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
    short = ({"embeddings": torch.zeros(3, 2)}, {})
    monkeypatch.setattr(kept_embeddings, "read_checked", lambda *_: short)
    (found,) = kept(tmp_path).views("train", 20, [constant]) or []
    assert torch.equal(found, torch.ones(20, 2))
