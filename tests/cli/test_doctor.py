"""`metakd doctor`: what is there and what is not, with a remedy for each 'no'."""

from __future__ import annotations

from pathlib import Path

import pytest

from metakd.cli.doctor import examine
from metakd.config.locate import Choices


def test_every_no_has_a_remedy(tmp_path: Path) -> None:
    findings = list(examine(Choices(), str(tmp_path / "data"), str(tmp_path / "cache")))
    assert {"python", "torch", "cuda", "data_root", "cache_root", "wandb login"} <= {
        f.what for f in findings
    }
    assert all("->" in str(f) for f in findings if not f.good)
    assert not (tmp_path / "cache").exists()  # looking changes nothing


def test_what_the_cache_holds_is_said(tmp_path: Path) -> None:
    def cache_line() -> str:
        return next(f.detail for f in examine(Choices(), None, str(tmp_path)) if "cache" in f.what)

    assert cache_line().endswith("can be written, empty")
    (tmp_path / "teachers" / "one").mkdir(parents=True)
    (tmp_path / "teachers" / "one" / "a.safetensors").write_bytes(bytes(2_400_000))
    (tmp_path / "prepared").mkdir()
    (tmp_path / "prepared" / "b").write_bytes(bytes(5_000))
    assert "holds 2 MB (teachers 2 MB, prepared 5 kB); delete it while no run" in cache_line()


def test_datasets_are_looked_for(tmp_path: Path) -> None:
    (tmp_path / "omniglot-py").mkdir()
    found = {f.what.strip(): f.good for f in examine(Choices(), str(tmp_path))}
    assert found["omniglot"] is True
    assert found["mnist"] is False
    assert "glyphs" not in found  # drawn by the program


def test_a_download_is_promised_only_where_there_is_one(tmp_path: Path) -> None:
    remedy = {f.what.strip(): f.remedy for f in examine(Choices(), str(tmp_path))}
    for name in ("omniglot", "mnist", "fashion_mnist", "cifar100", "cifar_fs", "fc100"):
        assert remedy[name].endswith("or let training download it")
    assert remedy["mini_imagenet"] == "put it at mini_imagenet there, it is not downloaded"


def test_report(metakd, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    answer = metakd("doctor", "--data-root", str(tmp_path))
    assert answer.status == 0
    assert any(x.startswith("yes  wandb login") for x in answer.out.splitlines())
    assert ("x" * 40) not in answer.out
