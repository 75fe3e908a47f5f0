"""`scripts/update_speed.py` measures updates of every kind that it names."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest
import torch

SMALL = ["--width", "4", "--size", "16", "--batch", "4", "--rounds", "1"]


@pytest.fixture
def speed(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "scripts"))
    return importlib.import_module("update_speed")


def test_an_update_learns_in_every_format(
    speed: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = torch.get_num_threads()
    losses: dict[str, list[float]] = {}
    made = speed.update

    def kept(asked: object, layout: str, dtype: torch.dtype) -> object:
        run = made(asked, layout, dtype)
        return lambda: losses.setdefault(f"{dtype} {layout}", []).append(run())

    monkeypatch.setattr(speed, "update", kept)
    try:
        assert speed.main(["formats", "--network", "resnet12", *SMALL, "--rounds", "5"]) == 0
    finally:
        torch.set_num_threads(threads)
    assert len(losses) == 4
    assert all(each[-1] < each[0] for each in losses.values())
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [row.split(" | ")[0] for row in rows] == [
        f"| {name}, {layout}" for name in speed.FORMATS for layout in speed.LAYOUTS
    ]


def test_how_threads_wait_is_told_to_each_process(
    speed: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ["waiting", *SMALL, "--seconds", "0", "--spins", "7"]
    seen = []
    ran = speed.subprocess.run

    def run(words: list[str], **given: dict[str, str]) -> object:
        seen.append({n: given["env"].get(n) for n in ("GOMP_SPINCOUNT", "OMP_NUM_THREADS")})
        return ran(words, **given)

    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setattr(speed.subprocess, "run", run)
    assert speed.main(asked) == 0
    assert seen == [
        {"GOMP_SPINCOUNT": "7", "OMP_NUM_THREADS": "3"},
        {"GOMP_SPINCOUNT": None, "OMP_NUM_THREADS": "1"},
    ]
    rows = capsys.readouterr().out.splitlines()[4:]
    assert [float(row.split(" | ")[1].rstrip(" |")) > 0 for row in rows] == [True, True]
