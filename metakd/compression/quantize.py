"""From a network of real numbers to one of integers: folding, calibration, what goes together."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from metakd.compression.quantized import ActivationRange, Quantized, QuantizedLayer, quantizable
from metakd.compression.strategy import FLOAT, LayerChoice, Strategy
from metakd.models.normalization import batchnorm_mode, set_running_statistics

__all__ = [
    "folded",
    "freeze",
    "quantizable_layers",
    "quantize",
    "recalibrate",
    "running",
    "with_integers",
]

_NORMS = (nn.BatchNorm2d, nn.BatchNorm1d)


def quantizable_layers(backbone: nn.Module) -> list[str]:
    """Return the names of the layers that can be integers."""
    return [name for name, layer in backbone.named_modules() if name and quantizable(layer)]


@torch.no_grad()
def recalibrate(backbone: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set the running statistics of batch norm anew: the means over batches.

    Pruned layers make other activations than those that the old statistics are of. A network
    that keeps none, as adapting learners use it, stays without; its statistics are each batch's.

    Args:
        backbone: changed in place.
        batches: [n, *example] each.
    """
    norms = [m for m in backbone.modules() if isinstance(m, _NORMS) and m.running_mean is not None]
    if not norms:
        return
    before = [(m, m.training) for m in backbone.modules()]
    momenta = [m.momentum for m in norms]
    backbone.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean of all batches
        norm.train()
    for batch in batches:
        backbone(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    for module, training in before:
        module.training = training


def quantize(backbone: nn.Module, strategy: Strategy, batches: Iterable[Tensor]) -> nn.Module:
    """Put integers in the place of the layers that a strategy names; return the new network.

    Batch norm becomes part of the layer before it, with its running statistics; a network that
    keeps none is given those of `batches` first. Weights can be trained further until `freeze`.

    Args:
        backbone: changed in place.
        strategy: bits of each layer; a layer that cannot be integers stays as it is.
        batches: examples [n, *example] that the ranges of activations are taken from.

    Raises:
        ValueError: an activation is not finite.
    """
    shown = list(batches)
    found = with_integers(backbone, strategy, shown)
    with running(found):
        _calibrate(found, shown)
        _share_ranges(found, shown[0][:4])
    return found


def with_integers(backbone: nn.Module, strategy: Strategy, shown: Sequence[Tensor]) -> Quantized:
    """Return the network that `quantize` does, without the ranges of its activations."""
    if any(m.running_mean is None for m in backbone.modules() if isinstance(m, _NORMS)):
        set_running_statistics(backbone, True)
        recalibrate(backbone, shown)
    backbone.eval()
    bits = {
        name: strategy.of(name).bits
        for name in quantizable_layers(backbone)
        if strategy.of(name).bits < FLOAT
    }
    with running(backbone):
        _fold(backbone, {*bits}, shown[0][:2])
    for name, width in bits.items():
        layer = backbone.get_submodule(name)
        path, _, own = name.rpartition(".")
        setattr(backbone.get_submodule(path), own, QuantizedLayer(layer, width))
    return Quantized(backbone).eval()


def freeze(network: nn.Module) -> nn.Module:
    """Keep the integers alone of every quantised layer; return the network."""
    for module in network.modules():
        if isinstance(module, QuantizedLayer):
            module.frozen()
    return network


@contextmanager
def running(network: nn.Module) -> Iterator[None]:
    """Use running statistics, without gradients."""
    with torch.no_grad(), batchnorm_mode(network, "running"):
        yield


def _calibrate(network: Quantized, batches: Iterable[Tensor]) -> None:
    ranges = [m for m in network.modules() if isinstance(m, ActivationRange)]
    for each in ranges:
        each.observing = True
    for batch in batches:
        network(batch)
    for each in ranges:
        each.settle()


def folded(backbone: nn.Module, layers: Iterable[str], examples: Tensor) -> dict[str, str]:
    """Return by name the batch norm that becomes part of a layer, and that layer.

    Args:
        backbone: left as it is.
        layers: that become integers.
        examples: [n, *example], for one pass.
    """
    trial = copy.deepcopy(backbone).eval()
    with torch.no_grad():
        followers = _followers(trial, examples)
    choices = {name: LayerChoice(bits=8) for name in layers}
    made = with_integers(trial, Strategy(choices), [examples]).network
    return {
        norm: layer
        for norm, layer in followers.items()
        if isinstance(made.get_submodule(norm), nn.Identity)
    }


def _fold(backbone: nn.Module, layers: set[str], examples: Tensor) -> None:
    """Make batch norm part of the layer before it, wherever nothing else sees that layer's output.

    Which norm follows which layer is seen in a pass; whether the sum of both does the same in the
    whole network is tried out on a copy with other statistics.
    """
    for norm, layer in _followers(backbone, examples).items():
        if layer not in layers:
            continue
        trial = copy.deepcopy(backbone)
        scattered = trial.get_submodule(norm)
        generator = torch.Generator().manual_seed(0)
        for tensor in (*scattered.parameters(), *scattered.buffers()):
            if tensor.is_floating_point():
                drawn = 0.5 + torch.rand(tensor.shape, generator=generator)
                tensor.data.copy_(drawn.to(tensor))
        before = trial(examples)
        _fold_one(trial, norm, layer)
        after = trial(examples)
        if torch.allclose(before, after, rtol=1e-3, atol=1e-3 * float(before.abs().max())):
            _fold_one(backbone, norm, layer)


def _followers(backbone: nn.Module, examples: Tensor) -> Mapping[str, str]:
    """Return by name of a batch norm the layer whose output it is given."""
    made: dict[int, str] = {}
    kept: list[Tensor] = []  # so that no other tensor gets the same identity
    found: dict[str, str] = {}
    hooks = []
    for name, module in backbone.named_modules():
        if quantizable(module):

            def note(m: nn.Module, given: object, result: Tensor, name: str = name) -> None:
                made[id(result)] = name
                kept.append(result)

            hooks.append(module.register_forward_hook(note))
        elif isinstance(module, _NORMS):

            def look(m: nn.Module, given: tuple[Tensor, ...], name: str = name) -> None:
                if id(given[0]) in made:
                    found[name] = made[id(given[0])]

            hooks.append(module.register_forward_pre_hook(look))
    try:
        backbone(examples)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _fold_one(backbone: nn.Module, norm: str, layer: str) -> None:
    n, own = backbone.get_submodule(norm), backbone.get_submodule(layer)
    assert isinstance(n, nn.BatchNorm1d | nn.BatchNorm2d)
    assert isinstance(own, nn.Conv1d | nn.Conv2d | nn.Linear)
    assert n.running_mean is not None and n.running_var is not None
    factor = torch.rsqrt(n.running_var + n.eps)
    if n.weight is not None:
        factor = factor * n.weight.detach()
    shift = -n.running_mean * factor
    if n.bias is not None:
        shift = shift + n.bias.detach()
    weight = own.weight.detach()
    own.weight = nn.Parameter(weight * factor.view(-1, *(1 for _ in weight.shape[1:])))
    bias = shift if own.bias is None else own.bias.detach() * factor + shift
    own.bias = nn.Parameter(bias)
    path, _, name = norm.rpartition(".")
    setattr(backbone.get_submodule(path), name, nn.Identity())


def _share_ranges(network: Quantized, examples: Tensor) -> None:
    """Let a layer round its output as the next one rounds its input, where that changes nothing.

    Between them stand only operations that keep the order of numbers (ReLU, max-pooling), so that
    rounding before or after them is the same, and a runtime can compute them in integers. Found
    by trying: a layer's own range is replaced by that of a later one, and the network's answers
    have to stay what they are without rounding the layer's output at all.
    """
    layers = [m for m in network.modules() if isinstance(m, QuantizedLayer)]
    order: list[nn.Module] = []
    hooks = [m.register_forward_pre_hook(lambda m, given: order.append(m)) for m in layers]
    network(examples[:1])
    for hook in hooks:
        hook.remove()
    ranges = [m.input for m in order if isinstance(m, QuantizedLayer)] + [network.embedding]
    for i, layer in enumerate(order):
        assert isinstance(layer, QuantizedLayer)
        own = layer.output
        layer.output = _Exact()  # type: ignore[assignment]
        without = network(examples)
        for following in ranges[i + 1 : i + 3]:
            trial = copy.deepcopy(following)
            layer.output = trial
            if torch.equal(network(examples), without):
                break
        else:
            layer.output = own


class _Exact(nn.Module):
    """Rounds nothing."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x."""
        return x
