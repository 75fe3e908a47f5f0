"""`make bench` runs, its contenders do the same work, and its figures can be compared."""

from __future__ import annotations

import copy
import importlib
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

QUICK = ("--quick", "--rounds", "1")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "scripts"))
    torch.set_default_dtype(torch.float32)
    return importlib.import_module("bench")


@pytest.fixture
def contenders(bench: ModuleType) -> ModuleType:
    return importlib.import_module("bench_contenders")


def test_every_algorithm_is_measured(bench: ModuleType, contenders: ModuleType) -> None:
    found = bench.measured_here(bench.Work(**bench.SMALL), contenders.ALGORITHMS, 1)
    assert set(found["algorithms"]) == set(contenders.ALGORITHMS)
    for name, medians in found["algorithms"].items():
        assert {"plain loop", "metakd", "metakd, distilling"} <= set(medians), name
        assert all(m["seconds"] > 0 and m["processor"] >= 0 for m in medians.values())
        assert medians["metakd"]["cosine"] > 0.999
    for name in ("maml", "protonet", "supervised"):  # 1 would be float32
        assert 0.9 < found["algorithms"][name]["metakd, bfloat16"]["cosine"] < 0.9999, name


@pytest.mark.parametrize("change", [lambda g: g.flip(0), lambda g: 2.0 * g], ids=["way", "length"])
def test_another_gradient_is_not_compared(
    contenders: ModuleType, change: Callable[[Tensor], Tensor]
) -> None:
    found = contenders.same_work("maml", contenders.Work(width=4, size=16, tasks=1, steps=1))
    assert contenders.agreement("maml", found)["metakd"] > 0.999
    gradient = change(found["plain loop"].gradient())
    other = torch.nn.Parameter(torch.zeros_like(gradient))
    other.grad = gradient
    found["metakd"] = contenders.Contender(lambda: None, [other])
    with pytest.raises(RuntimeError, match="maml: metakd makes another gradient than the plain"):
        contenders.agreement("maml", found)


def test_figures_are_stored_and_compared(
    bench: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(bench, "all_cores", lambda: 1)
    before = tmp_path / "before.json"
    bench.main([*QUICK, "--algorithms", "anil", "--json", str(before)])
    stored = json.loads(before.read_text())
    medians = stored["cores"]["1"]["algorithms"]["anil"]
    assert "1 core; ratios of processor seconds; load average" in capsys.readouterr().out
    later = copy.deepcopy(stored)
    later["cores"]["1"]["algorithms"]["anil"]["metakd"]["processor"] = (
        medians["metakd"]["processor"] / 4
    )
    later["torch"] = "9.0"
    said = importlib.import_module("bench_report").changes(stored, later).splitlines()
    row = next(line for line in said if line.startswith("1 core, anil, metakd  "))
    assert row.split()[-1] == "0.25"
    assert said[-1] == f"torch: {stored['torch']} before, 9.0 now"
    with pytest.raises(SystemExit, match=r"other work \(width=4, not 64"):
        bench.main(["--against", str(before)])
    with pytest.raises(SystemExit, match=r"--against .*none\.json"):
        bench.main(["--against", str(tmp_path / "none.json")])
