"""What a network costs: parameters, multiply-adds, bytes, and time on this machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from metakd.models.normalization import (
    batchnorm_mode,
    forget_statistics,
    has_batchnorm,
    has_running_statistics,
)

__all__ = ["cost", "multiply_adds", "saved_bytes"]

_BATCH = 64
_BATCH_LIMIT_S = 5.0
_BUDGET_S = 1.0
_WARM_UP = 3
_LEAST_RUNS = 5
_MOST_RUNS = 200


def cost(
    network: nn.Module, input_shape: tuple[int, ...], device: torch.device | str
) -> dict[str, float]:
    """Measure a network in float32, as it is used after training.

    Batch norm uses running statistics or, where there are none, statistics recorded before (as
    of a support set). The network's training flags and buffers are as they were afterwards.

    Args:
        network: any module that takes [n, *input_shape].
        input_shape: shape of one example.
        device: where the network lies.

    Returns:
        `parameters`; `macs`: multiply-adds for one example; `bytes`: size of weights and buffers
        as saved in float32; `latency_ms`: median time of one example; `latency_batch_ms`: of a
        batch of 64, absent if measuring it would take over 5 s; on CUDA `peak_memory_bytes`: the
        most memory that is taken during such a batch, weights included.
    """
    device = torch.device(device)
    measured: dict[str, float] = {
        "parameters": sum(p.numel() for p in network.parameters()),
        "bytes": saved_bytes(network),
    }
    with _as_deployed(network, torch.zeros(4, *input_shape, device=device)):
        one = torch.zeros(1, *input_shape, device=device)
        measured["macs"] = _multiply_adds(network, one)
        single = _latency(lambda: network(one), device)
        measured["latency_ms"] = 1e3 * single
        if _BATCH * single > _BATCH_LIMIT_S:
            return measured
        batch = torch.zeros(_BATCH, *input_shape, device=device)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        first = _seconds(lambda: network(batch), device)
        if (_WARM_UP + _LEAST_RUNS) * first <= _BATCH_LIMIT_S:
            measured["latency_batch_ms"] = 1e3 * _latency(lambda: network(batch), device)
        if device.type == "cuda":
            measured["peak_memory_bytes"] = torch.cuda.max_memory_allocated(device)
    return measured


def multiply_adds(
    network: nn.Module, input_shape: tuple[int, ...], device: torch.device | str = "cpu"
) -> int:
    """Return the multiply-adds of convolutions and matrix products for one example."""
    few = torch.zeros(4, *input_shape, device=device)
    with _as_deployed(network, few):
        return _multiply_adds(network, few[:1])


def saved_bytes(network: nn.Module) -> int:
    """Return the bytes of all weights and buffers with every real number in float32."""
    return sum(
        t.numel() * (4 if t.is_floating_point() else t.element_size())
        for t in network.state_dict().values()
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


def _multiply_adds(network: nn.Module, example: Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        network(example)
    return int(counter.get_total_flops()) // 2


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    """Time one call, until the device has finished it."""
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter() - start


def _latency(run: Callable[[], object], device: torch.device) -> float:
    """Return the median seconds of up to 200 calls in about a second, and of 5 at least."""
    for _ in range(_WARM_UP):
        _seconds(run, device)
    times: list[float] = []
    while len(times) < _MOST_RUNS and (len(times) < _LEAST_RUNS or sum(times) < _BUDGET_S):
        times.append(_seconds(run, device))
    return statistics.median(times)
