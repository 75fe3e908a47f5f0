"""`scripts/growth.py` measures what it says and sees what grows faster than the work."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest
import torch


@pytest.fixture
def growth(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "scripts"))
    torch.set_default_dtype(torch.float32)
    module = importlib.import_module("growth")
    small = module.Work(width=4, size=16, tasks=2, queries=2, steps=1)
    monkeypatch.setattr(module, "BASE", small)
    return module


def test_the_work_of_a_size(growth: ModuleType) -> None:
    assert [growth.unit("maml", "ways", n)[1] for n in (5, 10)] == [5, 10]
    (_, narrow), (_, wide) = (growth.unit("protonet", "width", n) for n in (4, 8))
    assert 2 < wide / narrow < 4  # of four layers the first has one channel of input
    assert growth.unit("fomaml", "size", 32)[1] == 4 * growth.unit("fomaml", "size", 16)[1]


def test_a_table_and_a_figure(
    growth: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(growth, "apart", lambda _, measure, *given: measure(*given, rounds=1))
    monkeypatch.setattr(
        growth, "AXES", {"tasks": (("fomaml",), (1, 2)), "classes": (("draw",), (8, 16))}
    )
    assert growth.main(["--axes", "tasks", "classes", "--output", str(tmp_path)]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert rows[2].startswith("| tasks | fomaml | 1, 2 |")
    assert rows[3].startswith("| classes | draw | 8, 16 |")
    assert (tmp_path / "growth.png").stat().st_size > 1000


def test_what_grows_faster_than_the_work_is_marked(growth: ModuleType) -> None:
    def line(power: float) -> list[dict[str, float]]:
        return [
            {"size": s, "work": s, "seconds": s**power, "mebibytes": 1.0} for s in (1.0, 2.0, 4.0)
        ]

    assert growth.slope(line(1.5)) == pytest.approx(1.5)
    rows = growth.table({"ways": {"slow": line(1.5), "good": line(1.0)}}).splitlines()
    assert "| 1.50 (faster than the work) |" in rows[2]
    assert "| 1.00 |" in rows[3]


def test_measuring_begins_when_memory_no_longer_rises(
    growth: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    peaks, runs = iter([100.0, 700.0, 900.0, 900.5]), []
    monkeypatch.setattr(growth, "peak_mebibytes", lambda: next(peaks))
    growth.settle(lambda: runs.append(1))
    assert len(runs) == 3
