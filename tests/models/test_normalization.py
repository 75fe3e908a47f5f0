"""Normalisation: equal to PyTorch's where that is right, and right where PyTorch's is not."""

from __future__ import annotations

import copy
import threading

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from metakd.errors import UserError
from metakd.models.normalization import (
    BatchNorm2d,
    batchable,
    batchnorm_mode,
    forget_statistics,
    has_batchnorm,
    has_running_statistics,
    make_norm,
    replace_batchnorm,
    set_running_statistics,
)


def random_layer(channels: int = 3, **settings: bool) -> BatchNorm2d:
    layer = BatchNorm2d(channels, **settings).double()
    if layer.weight is not None:
        nn.init.uniform_(layer.weight, 0.5, 1.5)
        nn.init.normal_(layer.bias)
    if layer.running_mean is not None:
        layer.running_mean.normal_()
        layer.running_var.uniform_(0.5, 2.0)
    return layer


@pytest.fixture
def images() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(4, 3, 2, 2, dtype=torch.float64) * 2 + 1


def test_without_a_mode_it_is_torchs_batch_norm(images: Tensor) -> None:
    ours, theirs = BatchNorm2d(3).double(), nn.BatchNorm2d(3).double()
    for _ in range(3):
        assert torch.equal(ours(images), theirs(images))
    for (name, a), (other, b) in zip(
        ours.state_dict().items(), theirs.state_dict().items(), strict=True
    ):
        assert name == other
        assert torch.equal(a, b)
    ours.eval(), theirs.eval()
    assert torch.equal(ours(images), theirs(images))


def test_eval_without_running_statistics_uses_the_batch(images: Tensor) -> None:
    ours = BatchNorm2d(3, track_running_stats=False).double().eval()
    theirs = nn.BatchNorm2d(3, track_running_stats=False).double().eval()
    assert torch.equal(ours(images), theirs(images))
    with pytest.raises(RuntimeError, match="keeps no running"), batchnorm_mode(ours, "running"):
        ours(images)


@pytest.mark.parametrize("mode", ["batch", "running", "record"])
def test_running_statistics_stay_in_eval(mode: str, images: Tensor) -> None:
    layer = random_layer().eval()
    before = copy.deepcopy(layer.state_dict())
    with batchnorm_mode(layer, mode):
        layer(images)
    assert all(torch.equal(before[k], v) for k, v in layer.state_dict().items())


def test_batch_mode_updates_running_statistics_in_training_only(images: Tensor) -> None:
    layer = random_layer()
    before = layer.running_mean.clone()
    with batchnorm_mode(layer, "batch"):
        layer(images)
    expected = 0.9 * before + 0.1 * images.mean((0, 2, 3))
    torch.testing.assert_close(layer.running_mean, expected)
    assert layer.num_batches_tracked == 1


def test_recorded_repeats_record(images: Tensor) -> None:
    layer = random_layer()
    with batchnorm_mode(layer, "record"):
        first = layer(images)
    with batchnorm_mode(layer, "recorded"):
        second = layer(images)
        torch.testing.assert_close(second, first, rtol=1e-12, atol=1e-12)
        part = layer(images[:1])
    torch.testing.assert_close(part, first[:1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_record_without_gradients_remembers_the_same(dtype: torch.dtype, images: Tensor) -> None:
    layer = random_layer().to(torch.float32 if dtype == torch.bfloat16 else dtype)
    constant = torch.full_like(images[:, :1], 7.0)  # a channel that never varies
    x = torch.cat([images[:, :2], constant], 1).to(dtype)
    with batchnorm_mode(layer, "record"):
        expected, statistics = layer(x), layer.recorded
        with torch.no_grad():
            torch.testing.assert_close(layer(x), expected)
    assert statistics is not None
    for ours, right in zip(layer.recorded, statistics, strict=True):
        torch.testing.assert_close(ours, right, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("mode", ["batch", "running", "record"])
def test_gradients_of_first_and_second_order(mode: str, images: Tensor) -> None:
    layer = random_layer(track_running_stats=mode == "running").eval()

    def f(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        with batchnorm_mode(layer, mode):
            return functional_call(layer, {"weight": weight, "bias": bias}, (x,))

    given = (
        images.requires_grad_(),
        layer.weight.detach().requires_grad_(),
        layer.bias.detach().requires_grad_(),
    )
    assert torch.autograd.gradcheck(f, given)
    assert torch.autograd.gradgradcheck(f, given)


def test_gradients_flow_to_the_recorded_batch(images: Tensor) -> None:
    layer = random_layer(track_running_stats=False)
    query = torch.randn(2, 3, 2, 2, dtype=torch.float64)

    def f(support: Tensor, query: Tensor) -> Tensor:
        with batchnorm_mode(layer, "record"):
            layer(support)
        with batchnorm_mode(layer, "recorded"):
            return layer(query)

    given = (images.requires_grad_(), query.requires_grad_())
    assert torch.autograd.gradcheck(f, given)
    assert torch.autograd.gradgradcheck(f, given)
    assert torch.autograd.grad(f(*given).sum(), images)[0].abs().max() > 1e-3


def test_recorded_by_hand_as_without_gradients(images: Tensor) -> None:
    layer = random_layer()
    query = torch.randn(2, 3, 2, 2, dtype=torch.float64)
    images.requires_grad_()
    with batchnorm_mode(layer, "record"):
        layer(images)
    with batchnorm_mode(layer, "recorded"):
        by_hand = layer(query)
        with torch.no_grad():
            native = layer(query)
    torch.testing.assert_close(by_hand, native, rtol=1e-12, atol=1e-12)
    forget_statistics(layer)
    with pytest.raises(RuntimeError, match="no 'record' pass"), batchnorm_mode(layer, "recorded"):
        layer(query)


class Small(nn.Module):
    def __init__(self, norm: nn.Module, channels: int = 16) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, channels, 3, padding=1)
        self.norm = norm
        self.head = nn.Linear(channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.norm(self.conv(x)))
        return self.head((x * x).mean((2, 3)))


def outer_loss(
    net: nn.Module, start: dict[str, Tensor], task: tuple[Tensor, ...], modes: tuple[str, str]
) -> Tensor:
    """One inner step on the support set, then the loss on the query set."""
    support, labels, query, query_labels = task

    def loss(parameters: dict[str, Tensor], x: Tensor, y: Tensor, mode: str) -> Tensor:
        with batchnorm_mode(net, mode):
            return nn.functional.cross_entropy(functional_call(net, parameters, (x,)), y)

    gradient = grad(loss)(start, support, labels, "batch")
    adapted = {k: v - 0.5 * gradient[k] for k, v in start.items()}
    if modes[0] == "record":
        loss(adapted, support, labels, "record")
    return loss(adapted, query, query_labels, modes[1])


def loop_gradient(
    net: nn.Module, tasks: list[tuple[Tensor, ...]], modes: tuple[str, str]
) -> list[Tensor]:
    """The same with autograd alone and no functional transform: the independent reference."""
    start = {k: v.detach().requires_grad_() for k, v in net.named_parameters()}
    total = torch.zeros((), dtype=torch.float64)
    for support, labels, query, query_labels in tasks:
        with batchnorm_mode(net, "batch"):
            out = functional_call(net, start, (support,))
        inner = nn.functional.cross_entropy(out, labels)
        gradients = torch.autograd.grad(inner, list(start.values()), create_graph=True)
        adapted = {k: v - 0.5 * g for (k, v), g in zip(start.items(), gradients, strict=True)}
        if modes[0] == "record":
            with batchnorm_mode(net, "record"):
                functional_call(net, adapted, (support,))
        with batchnorm_mode(net, modes[1]):
            out = functional_call(net, adapted, (query,))
        total = total + nn.functional.cross_entropy(out, query_labels)
    return list(torch.autograd.grad(total / len(tasks), list(start.values())))


def some_tasks(n: int = 3) -> list[tuple[Tensor, ...]]:
    torch.manual_seed(1)
    labels = torch.arange(3).repeat(2)
    return [
        (
            torch.randn(6, 2, 4, 4, dtype=torch.float64) * (i + 1),
            labels,
            torch.randn(6, 2, 4, 4, dtype=torch.float64),
            labels,
        )
        for i in range(n)
    ]


@pytest.mark.parametrize(
    ("kind", "modes"),
    [
        ("batch", ("batch", "batch")),
        ("batch", ("record", "recorded")),
        ("batch", ("batch", "record")),
        ("group", ("batch", "batch")),
        ("layer", ("batch", "batch")),
        ("none", ("batch", "batch")),
    ],
)
@pytest.mark.parametrize("path", ["vmap", "loop_of_grad"])
def test_second_order_meta_gradient(kind: str, modes: tuple[str, str], path: str) -> None:
    torch.manual_seed(0)
    net = Small(make_norm(kind, 16)).double()
    set_running_statistics(net, False)
    assert batchable(net)
    tasks = some_tasks()
    reference = loop_gradient(net, tasks, modes)
    start = {k: v.detach().requires_grad_() for k, v in net.named_parameters()}
    if path == "vmap":
        stacked = tuple(torch.stack(t) for t in zip(*tasks, strict=True))
        losses = vmap(lambda *task: outer_loss(net, start, task, modes))(*stacked)
    else:
        losses = torch.stack([outer_loss(net, start, task, modes) for task in tasks])
    gradients = torch.autograd.grad(losses.mean(), list(start.values()))
    for ours, right in zip(gradients, reference, strict=True):
        torch.testing.assert_close(ours, right, rtol=1e-9, atol=1e-11)


def test_vmap_uses_running_statistics_as_constants(images: Tensor) -> None:
    layer = random_layer().eval()
    stacked = torch.stack([images, 2 * images])
    torch.testing.assert_close(
        vmap(layer)(stacked), torch.stack([layer(images), layer(2 * images)]), rtol=1e-12, atol=0
    )


def test_updating_running_statistics_under_vmap_is_refused(images: Tensor) -> None:
    layer = random_layer()
    with pytest.raises(RuntimeError, match="set_running_statistics"):
        vmap(layer)(images[None])


def test_native_norms_are_reported_as_not_batchable() -> None:
    for native in (nn.BatchNorm2d(4), nn.InstanceNorm2d(4), nn.LayerNorm(4)):
        assert not batchable(nn.Sequential(nn.Conv2d(4, 4, 1), native))
    assert batchable(nn.Sequential(BatchNorm2d(4), nn.GroupNorm(2, 4)))


def test_low_precision_keeps_its_type_and_statistics_in_float32() -> None:
    torch.manual_seed(0)
    x = (torch.randn(8, 3, 4, 4) + 20).bfloat16().requires_grad_()
    layer = BatchNorm2d(3)
    with batchnorm_mode(layer, "record"):
        layer(x)
    assert layer.recorded is not None
    assert layer.recorded[0].dtype == torch.float32
    with batchnorm_mode(layer, "recorded"):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    assert y.float().mean().abs() < 0.02


def test_modes_nest_and_come_back_after_an_error() -> None:
    layer = BatchNorm2d(3)
    with batchnorm_mode(layer, "record"):
        with pytest.raises(KeyError), batchnorm_mode(layer, "batch"):
            raise KeyError
        assert layer.mode == "record"
    assert layer.mode is None
    with pytest.raises(ValueError, match="none of batch"), batchnorm_mode(layer, "median"):  # type: ignore[arg-type]
        pass


def test_copies_in_threads_do_not_share_what_they_remember(images: Tensor) -> None:
    layer = random_layer(track_running_stats=False)
    with batchnorm_mode(layer, "record"):
        layer(images.requires_grad_())
        copies = [copy.deepcopy(layer) for _ in range(2)]  # a graph hangs on the original
    assert all(c.mode is None and c.recorded is None for c in copies)
    start = threading.Barrier(2)

    def work(i: int) -> None:
        with batchnorm_mode(copies[i], "record"):
            start.wait()
            copies[i](images + i)
            start.wait()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, c in enumerate(copies):
        assert c.recorded is not None
        torch.testing.assert_close(c.recorded[0], (images + i).mean((0, 2, 3)))


def test_running_statistics_switch_off_and_on() -> None:
    net = nn.Sequential(BatchNorm2d(3), nn.ReLU())
    assert has_batchnorm(net)
    assert has_running_statistics(net)
    assert not has_batchnorm(nn.GroupNorm(1, 3))
    assert not has_running_statistics(nn.GroupNorm(1, 3))
    set_running_statistics(net, False)
    assert has_batchnorm(net)
    assert not has_running_statistics(net)
    assert set(net.state_dict()) == {"0.weight", "0.bias"}
    net(torch.randn(2, 3, 2, 2))
    set_running_statistics(net, True)
    reference = nn.Sequential(nn.BatchNorm2d(3)).state_dict()
    assert all(torch.equal(reference[k], v) for k, v in net.state_dict().items())
    net(torch.randn(2, 3, 2, 2))
    assert net[0].num_batches_tracked == 1


def test_replacing_keeps_parameters_buffers_and_outputs() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Sequential(nn.BatchNorm2d(4), nn.ReLU())).eval()
    net[1][0].running_mean.normal_()
    x = torch.randn(2, 2, 5, 5)
    before, weight = net(x), net[1][0].weight
    assert replace_batchnorm(net) is net
    assert isinstance(net[1][0], BatchNorm2d)
    assert net[1][0].weight is weight
    assert torch.equal(net(x), before)
    assert isinstance(replace_batchnorm(nn.BatchNorm2d(2)), BatchNorm2d)


@pytest.mark.parametrize(("channels", "groups"), [(64, 4), (16, 1), (10, 1)])
def test_groups(channels: int, groups: int) -> None:
    layer = make_norm("group", channels)
    assert isinstance(layer, nn.GroupNorm)
    assert layer.num_groups == groups


def test_layer_norm_is_over_all_of_an_example() -> None:
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64) * 3 + 5
    y = make_norm("layer", 3).double()(x)
    torch.testing.assert_close(y.mean((1, 2, 3)), torch.zeros(2, dtype=torch.float64))


def test_unknown_norm_names_the_nearest() -> None:
    with pytest.raises(UserError, match="Did you mean 'batch'"):
        make_norm("bacth", 4)
