"""What a network costs that is made smaller: multiply-adds, parameters, bytes, time."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

from torch import Tensor, nn

from metakd.compression.quantize import freeze, with_integers
from metakd.compression.strategy import LayerChoice, Strategy
from metakd.models.cost import cost, multiply_adds, saved_bytes

__all__ = ["bytes_of", "measured"]


def measured(
    network: nn.Module, examples: Tensor, what: Mapping[str, float], bits: Mapping[str, int]
) -> dict[str, float]:
    """Return those costs of a network that `what` names.

    Args:
        network: of real numbers.
        examples: [n, *example], on the device where it lies.
        what: by name (`Budget`).
        bits: of each layer that will be integers.
    """
    shape = tuple(examples.shape[1:])
    counted: dict[str, Callable[[], float]] = {
        "macs": lambda: multiply_adds(network, shape, examples.device),
        "parameters": lambda: sum(p.numel() for p in network.parameters()),
        "bytes": lambda: bytes_of(network, examples, bits),
        "latency": lambda: cost(network, shape, examples.device)["latency_ms"],
    }
    return {name: float(counted[name]()) for name in what}


def bytes_of(network: nn.Module, examples: Tensor, bits: Mapping[str, int]) -> int:
    """Return the bytes of a network's weights once some of its layers are integers.

    Scales, ranges and biases count, and batch norm that becomes part of a layer does not.

    Args:
        network: of real numbers; left as it is.
        examples: [n, *example], by which it is seen which batch norm follows which layer.
        bits: of each layer's weights; layers that are not named stay float32.
    """
    if not bits:
        return saved_bytes(network)
    strategy = Strategy({name: LayerChoice(bits=width) for name, width in bits.items()})
    return saved_bytes(freeze(with_integers(copy.deepcopy(network).eval(), strategy, [examples])))
