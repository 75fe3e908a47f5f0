"""The estimate against direct counts; nothing changes; the words of it."""

from __future__ import annotations

import copy
import itertools
import re
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from metakd.algorithms.anil import ANIL
from metakd.algorithms.imaml import IMAML
from metakd.algorithms.maml import MAML
from metakd.algorithms.protonet import ProtoNet
from metakd.algorithms.reptile import Reptile
from metakd.algorithms.supervised import Supervised
from metakd.data.available_memory import available_memory
from metakd.data.tasks import TaskBatch
from metakd.distillation.kd import KD
from metakd.distillation.objective import Answer, Objective, TaskAnswers
from metakd.models.conv4 import Conv4
from metakd.registry import build
from metakd.stages import preflight as module
from metakd.stages import preflight as preflight_module
from metakd.stages.graph_memory import peak_of_graph
from metakd.stages.preflight import Estimate, preflight

CPU = torch.device("cpu")


def tasks(count: int = 4, shots: int = 2) -> TaskBatch:
    def labels(each: int) -> torch.Tensor:
        return torch.arange(3).repeat_interleave(each).repeat(count, 1)

    support, query = torch.randn(count, 3 * shots, 1, 16, 16), torch.randn(count, 6, 1, 16, 16)
    return TaskBatch(support, labels(shots), query, labels(2), 3, shots, 2)


def backbone() -> Conv4:
    torch.manual_seed(0)
    return Conv4((1, 16, 16), width=4)


def maml(**settings: Any) -> MAML:
    given: dict[str, Any] = {"inner_lr": 0.01, "inner_steps": 5, "execution": "loop", **settings}
    return build(MAML, backbone(), 3, options=given)


def counted(algorithm: nn.Module, batch: TaskBatch) -> int:
    """Bytes of all graphs of one `accumulate` of everything, as it is."""
    with peak_of_graph([*algorithm.parameters(), batch.support, batch.query]) as memory:
        algorithm.accumulate(batch, Objective(), None)
    return memory.bytes + module._PASSING * memory.largest


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"first_order": True},
        {"checkpoint_steps": 1},
        {"checkpoint_steps": 2, "inner_steps": 6},
        {"multi_step": 1.0},
        {"learn_rates": "per_layer_per_step"},
    ],
    ids=str,
)
def test_memory_is_that_of_a_direct_count(settings: dict[str, Any]) -> None:
    """Of the real number of steps, within 3 %; it is measured with 1 and 2 (blocks of) steps."""
    algorithm, batch = maml(**settings), tasks(1)
    estimate = preflight(algorithm, batch, Objective(), 100)
    assert estimate is not None
    parameters = 4 * sum(p.numel() for p in algorithm.parameters())
    data = 4 * (batch.support.numel() + batch.query.numel())
    graph = estimate.bytes - 4 * parameters - data
    assert graph == pytest.approx(counted(algorithm, batch), rel=0.03)


def test_more_steps_take_more() -> None:
    batch = tasks(1)
    few, many = (preflight(maml(inner_steps=k), batch, Objective(), 9) for k in (4, 40))
    assert many.bytes > 3 * few.bytes


def test_worked_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop holds one task's graph, threads as many as there are workers, batched all.

    Told are, for k inner steps, 1000 (5 + k) bytes and 2 + k seconds for a task alone, 3 + 2k for
    all at once; to be worked out are 5 steps, 10 meta-iterations, 4 tasks, 2 workers.
    """

    def steps_of(algorithm: MAML) -> int:
        assert algorithm.inner_steps <= 2
        return algorithm.inner_steps

    monkeypatch.setattr(module, "workers", lambda: 2)
    monkeypatch.setattr(
        module, "_measured", lambda a, *_: (1000 * (5 + steps_of(a)), 2.0 + steps_of(a))
    )
    monkeypatch.setattr(module, "_timed", lambda a, *_: 3.0 + 2 * steps_of(a))
    batch, algorithm = tasks(4), maml()
    held = 4 * sum(p.numel() for p in algorithm.parameters())
    data = 4 * (batch.support.numel() + batch.query.numel())
    sums = {"loop": (1, 4 * 7), "threads": (2, 2 * 7), "batched": (4, 13)}
    for how, (at_once, seconds) in sums.items():
        algorithm.execution = how
        found = preflight(algorithm, batch, Objective(), 10)
        assert found.bytes == 10_000 * at_once + held * (3 + at_once) + data
        assert found.seconds == pytest.approx(10 * seconds)
        assert ("algorithm.options.execution=loop" in found.advice) == (how != "loop")
        assert ("task.meta_batch=2" in found.advice) == (how == "batched")


def test_worked_sum_of_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    """4 of 10 iterations are of first order, 1 s each, the others take 3 s; memory likewise."""

    def measured(algorithm: MAML, *_: object) -> tuple[int, float]:
        return (10**6, 1.0) if algorithm.first_order else (10**7, 3.0)

    monkeypatch.setattr(module, "_measured", measured)
    found = preflight(maml(first_order_share=0.4), tasks(1), Objective(), 10)
    assert found.seconds == pytest.approx(4 * 1.0 + 6 * 3.0)
    assert 10**7 < found.bytes < 1.1 * 10**7


def test_times_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the clock (here one that moves by half a second at each look), times the iterations."""
    found = []
    for pace, iterations in ((0.5, 9), (0.5, 18), (1.0, 9)):
        ticks = itertools.count(0.0, pace)
        monkeypatch.setattr(preflight_module.time, "perf_counter", lambda t=ticks: next(t))
        found.append(preflight(maml(inner_steps=5), tasks(1), Objective(), iterations).seconds)
    assert found[0] > 0
    assert found[1] == pytest.approx(2 * found[0])
    assert found[2] == pytest.approx(2 * found[0])


def test_annealed_settings_count_where_they_are_dearest() -> None:
    batch = tasks(1)
    cheap, plain, annealed = (
        preflight(maml(**settings), batch, Objective(), 100)
        for settings in ({"first_order": True}, {}, {"first_order_share": 0.9})
    )
    assert annealed.bytes == plain.bytes > cheap.bytes


def test_metric_algorithm_grows_with_the_meta_batch() -> None:
    """One pass over the meta-batch, within 3 %, measured on 1 and 2 tasks."""
    batch, algorithm = tasks(8), ProtoNet(backbone())
    estimate = preflight(algorithm, batch, Objective(), 50)
    held = 4 * sum(p.numel() for p in algorithm.parameters())
    data = 4 * (batch.support.numel() + batch.query.numel())
    whole = counted(algorithm, batch)
    assert estimate.bytes == pytest.approx(whole + 4 * held + data, rel=0.03)
    assert estimate.advice[0] == "task.meta_batch=4"


@pytest.mark.parametrize(
    "make",
    [
        lambda: build(
            MAML, nn.Sequential(backbone(), nn.Dropout(0.5)), 3, options={"multi_step": 0.5}
        ),
        lambda: ANIL(backbone(), 3),
        lambda: build(IMAML, backbone(), 3, options={"inner_steps": 3}),
        lambda: build(Reptile, backbone(), 3, options={"inner_state": "carried"}),
        lambda: ProtoNet(backbone()),
    ],
    ids=["maml", "anil", "imaml", "reptile", "protonet"],
)
def test_changes_nothing(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parameters, buffers, gradients, random numbers, threads and the place in the training."""
    monkeypatch.setattr(nn.Sequential, "embedding_size", 4, raising=False)
    algorithm, objective, batch = make(), KD(4, 7), tasks()
    answer = Answer(torch.randn(4, 6, 3), torch.randn(4, 6, 7))
    algorithm.begin(3, 7)
    before = copy.deepcopy(algorithm.state_dict())
    settings = {k: v for k, v in vars(algorithm).items() if isinstance(v, int | str | tuple)}
    generator, threads = torch.get_rng_state(), torch.get_num_threads()
    modes = [m.training for m in algorithm.modules()]
    estimate = preflight(algorithm, batch, objective, 30, TaskAnswers(answer, answer))
    assert estimate is not None
    assert estimate.bytes > 0
    assert all(torch.equal(v, before[n]) for n, v in algorithm.state_dict().items())
    assert all(p.grad is None for p in algorithm.parameters())
    assert torch.equal(torch.get_rng_state(), generator)
    assert torch.get_num_threads() == threads
    assert [m.training for m in algorithm.modules()] == modes
    assert settings == {
        k: v for k, v in vars(algorithm).items() if isinstance(v, int | str | tuple)
    }


def test_is_cheap() -> None:
    """In seconds of this thread, which computes everything: the machine may be busy."""
    began = time.thread_time()
    preflight(maml(inner_steps=50), tasks(16), Objective(), 60_000)
    assert time.thread_time() - began < 2.0


def test_has_no_estimate_for_whole_batches() -> None:
    assert preflight(Supervised(backbone(), 3), tasks(), Objective(), 9) is None


@pytest.mark.parametrize(
    ("size", "seconds", "words"),
    [
        (2.1e9, 840, "meta-training: about 2.1 GB at peak, some 14 min for 2,000 meta-iterations"),
        (35e6, 0.2, "meta-training: about 35 MB at peak, some 1 s for 2,000 meta-iterations"),
        (999, 9000, "meta-training: about 999 bytes at peak, some 2.5 h for"),
    ],
)
def test_line(size: float, seconds: float, words: str) -> None:
    assert words in Estimate(int(size), seconds, 2000, None).line()


def test_warns_if_it_cannot_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "available_memory", lambda device: 10_000)
    warning = preflight(maml(), tasks(), Objective(), 9).warning()
    assert re.search(
        r"needs about .* at peak, and 10 kB are available; type algorithm.options.checkpoint_steps"
        r"=true, or algorithm.first_order=true, or algorithm.inner_steps=2",
        warning,
    )
    warning = preflight(maml(checkpoint_steps=1), tasks(), Objective(), 9).warning()
    assert "checkpoint_steps" not in warning
    warning = preflight(maml(first_order=True), tasks(), Objective(), 9).warning()
    assert warning.endswith("available")
    monkeypatch.setattr(module, "available_memory", lambda device: 10**12)
    assert preflight(maml(), tasks(), Objective(), 9).warning() is None
    assert Estimate(10**15, 1.0, 1, None).warning() is None


def test_available_memory(tmp_path: Path) -> None:
    """The least of what the system and the control group leave; unlimited groups do not count."""
    assert available_memory(CPU, tmp_path) is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 900 kB\nMemAvailable:  500 kB\n")
    assert available_memory(CPU, tmp_path) == 512_000
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text("250000\n")
    assert available_memory(CPU, tmp_path) == 512_000
    (group / "memory.max").write_text("300000\n")
    assert available_memory(CPU, tmp_path) == 50_000
    (group / "memory.stat").write_text("anon 5\ninactive_file 7000\n")
    assert available_memory(CPU, tmp_path) == 57_000
    (group / "memory").mkdir()
    (group / "memory/memory.limit_in_bytes").write_text("9000\n")
    (group / "memory/memory.usage_in_bytes").write_text("8000\n")
    assert available_memory(CPU, tmp_path) == 1000
    assert available_memory(torch.device("meta"), tmp_path) is None
