"""What a network costs: parameters, multiply-adds, bytes, and time on this machine."""

from __future__ import annotations

import inspect
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from metakd.models.normalization import (
    batchnorm_mode,
    forget_statistics,
    has_batchnorm,
    has_running_statistics,
)

__all__ = ["cost", "median_seconds", "multiply_adds", "saved_bytes", "task_cost"]

_BATCH = 64
_BATCH_LIMIT_S = 5.0
_BUDGET_S = 1.0
_WARM_UP = 3
_MOST_RUNS = 200
_ROUNDS = 5
"""Each of at least one call."""


def cost(
    network: nn.Module,
    input_shape: tuple[int, ...],
    device: torch.device | str,
    deployed: Iterable[nn.Module] | None = None,
) -> dict[str, float]:
    """Measure a network in float32, as it is used after training.

    Batch norm uses running statistics or, where there are none, statistics recorded before (as
    of a support set). The network's training flags and buffers are as they were afterwards.

    Args:
        network: any module that takes [n, *input_shape].
        input_shape: shape of one example.
        device: where the network lies.
        deployed: modules whose parameters and bytes count; None: the network.

    Returns:
        `parameters`; `macs`: multiply-adds for one example; `bytes`: size of weights and buffers
        as saved in float32; `latency_ms`: median time of one example; `latency_ms_spread`: half
        the range of the medians of the rounds in which it was measured, of five the slowest (a
        disturbance) left out; `latency_batch_ms`: of a batch of 64, absent if measuring it would
        take over 5 s; on CUDA `peak_memory_bytes`: the most memory that is taken during such a
        batch, weights included.
    """
    device = torch.device(device)
    kept = nn.ModuleList([network] if deployed is None else deployed)  # shared ones count once
    # One that another library runs says what torch cannot see; nobody counts its multiply-adds.
    foreign: dict[str, float] | None = getattr(network, "costs", None)
    measured: dict[str, float] = foreign or {
        "parameters": sum(p.numel() for p in kept.parameters()) + _integers(kept),
        "bytes": saved_bytes(kept),
    }
    measured = dict(measured)
    with _as_deployed(network, torch.zeros(4, *input_shape, device=device)):
        one = torch.zeros(1, *input_shape, device=device)
        if foreign is None:
            measured["macs"] = _multiply_adds(network, one)
        single = _Repeated(lambda: network(one), device)
        timed = [single]
        few_seconds = _BATCH * single.warm_up() <= _BATCH_LIMIT_S
        if few_seconds:
            many = torch.zeros(_BATCH, *input_shape, device=device)
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            first = _seconds(lambda: network(many), device)
            if (_WARM_UP + _ROUNDS) * first <= _BATCH_LIMIT_S:
                timed.append(_Repeated(lambda: network(many), device))
                timed[-1].warm_up()
        # In turn, so that the rounds of one lie apart in time: what slows the machine for a
        # moment shows as spread.
        for _ in range(_ROUNDS):
            for repeated in timed:
                repeated.round()
        measured["latency_ms"] = 1e3 * single.median
        measured["latency_ms_spread"] = 1e3 * single.spread
        if len(timed) > 1:
            measured["latency_batch_ms"] = 1e3 * timed[1].median
        if few_seconds and device.type == "cuda":
            measured["peak_memory_bytes"] = torch.cuda.max_memory_allocated(device)
    return measured


def task_cost(solve: Callable[[], object], device: torch.device | str) -> dict[str, float]:
    """Measure what solving a task takes, adaptation to its support set included.

    Args:
        solve: predicts one task's queries.
        device: where it is computed.

    Returns:
        `task_macs`: multiply-adds, of gradients too; `task_latency_ms`: median time, measured as
        that of an example, absent if measuring it would take over 5 s.
    """
    device = torch.device(device)
    with _counted() as counter:
        solve()
    measured: dict[str, float] = {"task_macs": int(counter.get_total_flops()) // 2}
    if (1 + _ROUNDS) * _seconds(solve, device) <= _BATCH_LIMIT_S:
        repeated = _Repeated(solve, device)
        for _ in range(_ROUNDS):
            repeated.round()
        measured["task_latency_ms"] = 1e3 * repeated.median
    return measured


def multiply_adds(
    network: nn.Module, input_shape: tuple[int, ...], device: torch.device | str = "cpu"
) -> int:
    """Return the multiply-adds of convolutions and matrix products for one example."""
    few = torch.zeros(4, *input_shape, device=device)
    with _as_deployed(network, few):
        return _multiply_adds(network, few[:1])


def median_seconds(call: Callable[[], object]) -> float:
    """Return the median time of a call on the CPU, in seconds, measured as that of an example."""
    repeated = _Repeated(call, torch.device("cpu"))
    repeated.warm_up()
    for _ in range(_ROUNDS):
        repeated.round()
    return repeated.median


def saved_bytes(network: nn.Module) -> int:
    """Return the bytes of all weights and buffers with every real number in float32."""
    kept = {id(t): t for t in network.state_dict(keep_vars=True).values()}
    return sum(
        t.numel() * (4 if t.is_floating_point() else t.element_size()) for t in kept.values()
    )


@contextmanager
def _as_deployed(network: nn.Module, examples: Tensor) -> Iterator[None]:
    """Evaluation mode without gradients, with statistics that do not depend on the batch."""
    flags = [(module, module.training) for module in network.modules()]
    recorded = has_batchnorm(network) and not has_running_statistics(network)
    network.eval()
    try:
        with torch.inference_mode():
            if not recorded:
                yield
                return
            with batchnorm_mode(network, "record"):
                network(examples)
            with batchnorm_mode(network, "recorded"):
                yield
    finally:
        if recorded:
            forget_statistics(network)
        for module, training in flags:
            module.training = training


@contextmanager
def _counted() -> Iterator[Any]:
    """Count operations, with attention and recurrent layers as the products that they consist of.

    On a CPU each would be one operation that is not counted.
    """
    attention, recurrent = torch.backends.mha.get_fastpath_enabled(), torch.backends.mkldnn.enabled
    torch.backends.mha.set_fastpath_enabled(False)
    torch.backends.mkldnn.enabled = False  # type: ignore[assignment]  # a property of the module
    try:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            yield counter
    finally:
        torch.backends.mha.set_fastpath_enabled(attention)
        torch.backends.mkldnn.enabled = recurrent


def _multiply_adds(network: nn.Module, example: Tensor) -> int:
    with _counted() as counter:
        mode = type(counter.mode)  # what wraps its method would import torch's compiler, too
        mode.__torch_dispatch__ = inspect.unwrap(mode.__torch_dispatch__)
        network(example)
    return int(counter.get_total_flops()) // 2


def _integers(network: nn.Module) -> int:
    """Return the number of weights that are integers, which PyTorch counts as buffers."""
    return sum(int(getattr(m, "integer_weights", 0)) for m in network.modules())


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    """Time one call, until the device has finished it."""
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter() - start


class _Repeated:
    """A call that is timed again and again: 200 times in about a second, 5 times at least.

    Args:
        run: what is timed.
        device: that has to finish it.
    """

    def __init__(self, run: Callable[[], object], device: torch.device) -> None:
        self._run = run
        self._device = device
        self._rounds: list[list[float]] = []

    def warm_up(self) -> float:
        """Call it without keeping the times; return the last one, in seconds."""
        return [_seconds(self._run, self._device) for _ in range(_WARM_UP)][-1]

    def round(self) -> None:
        """Time a share of the calls, one at least."""
        times: list[float] = []
        while not times or (
            len(times) < _MOST_RUNS // _ROUNDS and sum(times) < _BUDGET_S / _ROUNDS
        ):
            times.append(_seconds(self._run, self._device))
        self._rounds.append(times)

    @property
    def median(self) -> float:
        """Return the median seconds of all calls."""
        return statistics.median(t for times in self._rounds for t in times)

    @property
    def spread(self) -> float:
        """Return half the range of the rounds' medians, the slowest left out, in seconds."""
        medians = sorted(statistics.median(times) for times in self._rounds)[:-1]
        return (medians[-1] - medians[0]) / 2
