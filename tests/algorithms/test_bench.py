"""`make bench` runs, and its contenders do the same work."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest
import torch

from metakd.registry import build


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "scripts"))
    torch.set_default_dtype(torch.float32)
    return importlib.import_module("bench")


def test_quick_bench(bench: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    results = bench.main(["--quick"])
    assert set(results) == set(bench.ALGORITHMS)
    for name, seconds in results.items():
        assert {"plain loop", "metakd", "metakd, distilling"} <= set(seconds), name
        assert all(value > 0 for value in seconds.values())
    assert "/ plain loop" in capsys.readouterr().out


def test_other_work_is_noticed(bench: ModuleType) -> None:
    work = bench.Work(width=4, size=16, tasks=1, queries=2, steps=1)
    network = bench.plain_network(work.backbone(), 5)
    learner = build(
        bench.MAML, work.backbone(), 5, options={"inner_lr": bench.INNER_LR, "inner_steps": 1}
    )
    bench.same_head(learner, network)
    tasks = work.meta_batch()
    mine = bench.ours(learner, tasks, None)
    base = bench.plain(network, bench.plain_maml, tasks, 1, False)
    bench.check_same_work(mine, learner, base, network, "maml")
    other = bench.plain(network, bench.plain_anil, tasks, 1)
    learner.inner_steps = 30
    learner.rule.lr = 1.0
    with pytest.raises(RuntimeError, match="not the same gradient"):
        bench.check_same_work(mine, learner, other, network, "maml")
