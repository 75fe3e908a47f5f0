"""What a network costs, against numbers worked out by hand."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import nn

from metakd.models.conv4 import Conv4
from metakd.models.cost import cost, multiply_adds, saved_bytes, task_cost
from metakd.models.mlp import MLP
from metakd.models.network import Network
from metakd.models.normalization import BatchNorm2d, set_running_statistics


def test_a_convolution_and_a_linear_layer_by_hand() -> None:
    # 8·6 positions x 5 filters x (3·3·2) products; then 3·7 products
    assert multiply_adds(nn.Conv2d(2, 5, 3, padding=1), (2, 8, 6)) == 48 * 5 * 18
    assert multiply_adds(nn.Linear(3, 7), (3,)) == 21


class Attention(nn.Module):
    """Torch's own, of 2 heads: 6 places of 8 numbers."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        heads = x.unflatten(-1, (2, 4)).transpose(1, 2)
        return nn.functional.scaled_dot_product_attention(heads, heads, heads)


PRODUCTS = 2 * 6 * 6 * 8
"""Of attention: each place with each, for scores and for sums."""


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (Attention(), PRODUCTS),
        # Query, key, value and output: 4 · 8·8 each place; then 2 · 8·16.
        (
            nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
            PRODUCTS + 6 * (4 * 64 + 2 * 8 * 16),
        ),
        # Four gates from 8 numbers and from the state of 5, at each of 6 places.
        (nn.LSTM(8, 5, batch_first=True), 6 * 4 * 5 * (8 + 5)),
    ],
)
def test_what_a_cpu_computes_in_one_operation_by_hand(layer: nn.Module, expected: int) -> None:
    assert multiply_adds(layer, (6, 8)) == expected

    def solve() -> object:
        with torch.no_grad():
            return layer.eval()(torch.zeros(1, 6, 8))

    assert task_cost(solve, "cpu")["task_macs"] == expected
    assert torch.backends.mha.get_fastpath_enabled()
    assert torch.backends.mkldnn.enabled
    assert torch.backends.cuda.flash_sdp_enabled()


def test_figures_of_a_network() -> None:
    measured = cost(Network(MLP((4,), widths=[8]), 3), (4,), "cpu")
    assert measured["parameters"] == 4 * 8 + 8 + 8 * 3 + 3
    assert measured["macs"] == 32 + 24
    assert measured["bytes"] == 4 * measured["parameters"]
    assert measured["latency_ms"] > 0
    assert 0 <= measured["latency_ms_spread"] < measured["latency_ms"] * 100
    assert measured["latency_batch_ms"] > 0
    assert ("peak_memory_bytes" in measured) is False


def test_bytes_are_float32_and_count_buffers() -> None:
    layer = BatchNorm2d(10)
    assert saved_bytes(layer) == saved_bytes(layer.double()) == 4 * 10 * 4 + 8


@pytest.mark.parametrize("tracked", [True, False])
def test_the_network_is_left_as_it_was(tracked: bool) -> None:
    net = Network(Conv4((1, 16, 16), width=4), 5)
    set_running_statistics(net, tracked)
    net.head.eval()
    before = copy.deepcopy(net.state_dict())
    # Maps of one pixel: a single example has no statistics of its own there.
    cost(net, (1, 16, 16), "cpu")
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert net.training
    assert net.backbone.training
    assert not net.head.training
    assert all(
        m.mode is None and m.recorded is None for m in net.modules() if isinstance(m, BatchNorm2d)
    )


def test_latency_is_measured_in_rounds_that_alternate(
    monkeypatch: pytest.MonkeyPatch, most_runs: int
) -> None:
    """A clock by hand: of the five rounds of single examples the third is slower, the last faster.

    Each has 40 calls of 2 ms (third 3 ms, fifth 1.5 ms), a batch takes 64 times as long.
    """
    calls: list[int] = []

    class Slow(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            calls.append(len(x))
            return x

    def seconds(run, device) -> float:
        run()
        rounds = [size for size, before in zip(calls[1:], calls, strict=False) if size != before]
        nth = sum(size == 1 for size in rounds)  # of single examples, after the first batch
        return {3: 0.003, 5: 0.0015}.get(nth, 0.002) * calls[-1]

    monkeypatch.setattr("metakd.models.cost._seconds", seconds)
    monkeypatch.setattr("metakd.models.cost._MOST_RUNS", most_runs)
    measured = cost(Slow(), (4,), "cpu")
    assert measured["latency_ms"] == pytest.approx(2.0)
    assert measured["latency_ms_spread"] == pytest.approx((2 - 1.5) / 2)  # without the slowest
    assert measured["latency_batch_ms"] == pytest.approx(128.0)
    assert calls.count(1) == 1 + 3 + 5 * 40  # multiply-adds, warm-up, rounds
    assert calls.count(64) == 1 + 3 + 4 * 2 + 3  # until 0.2 s are over
    assert [size for size, _ in itertools.groupby(calls)] == [1, 64] * 6  # warm-up, then in turn


def test_a_slow_batch_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metakd.models.cost._BATCH_LIMIT_S", 1e-9)
    measured = cost(nn.Linear(3, 7), (3,), "cpu")
    assert "latency_batch_ms" not in measured
