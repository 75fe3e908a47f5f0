"""How a network that was made smaller is built again: the original one, with other sizes.

Everything that differs from the original is in plain values; no code is stored.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from metakd.compression.quantized import Quantized, QuantizedLayer, quantizable
from metakd.compression.strategy import BITS, FLOAT

__all__ = ["KEY", "Structure", "rebuilt", "structure_of"]

KEY = "metakd_compression"
"""Name of the structure in the header of a .safetensors file."""

SIZES = (
    *("in_channels", "out_channels", "groups"),
    *("in_features", "out_features", "num_features", "num_channels", "num_groups"),
    *("num_embeddings", "embedding_dim", "normalized_shape", "num_parameters"),
)
"""Attributes of PyTorch's layers that say how large their parameters are."""


@dataclass(frozen=True)
class Structure:
    """What of a network differs from what its architecture builds.

    Attributes:
        sizes: by name of a module, its attributes among `SIZES` that differ.
        shapes: by name of a parameter or buffer, its shape where that differs.
        bits: by name of a layer that is integers, the bits of its weights.
        folded: batch-norm layers that have become part of the layer before them.
        embedding_size: numbers of an embedding.
    """

    sizes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    bits: Mapping[str, int] = field(default_factory=dict)
    folded: tuple[str, ...] = ()
    embedding_size: int = 0

    def text(self) -> str:
        """Return it as JSON."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_text(cls, text: str) -> Structure:
        """Return what `text` wrote.

        Raises:
            ValueError: it is something else.
        """
        return cls.from_plain(json.loads(text))

    @classmethod
    def from_plain(cls, content: Any) -> Structure:
        """Return what `dataclasses.asdict` made of one.

        Raises:
            ValueError: it is something else.
        """
        if not isinstance(content, Mapping):
            raise ValueError("the structure is no object")
        kinds = {"sizes": dict, "shapes": dict, "bits": dict, "embedding_size": int}
        for name, kind in kinds.items():
            if type(content.get(name)) is not kind:
                raise ValueError(f"the structure's '{name}' is missing or of another kind")
        folded, bits = content.get("folded"), content["bits"]
        if not isinstance(folded, list | tuple) or not all(isinstance(n, str) for n in folded):
            raise ValueError("the structure's 'folded' is no list of names")
        if not all(type(b) is int and b in BITS and b < FLOAT for b in bits.values()):
            raise ValueError("the structure's 'bits' are no bit widths")
        sizes = {str(n): _sizes(found) for n, found in content["sizes"].items()}
        shapes = {str(n): _numbers(found) for n, found in content["shapes"].items()}
        return cls(sizes, shapes, dict(bits), tuple(folded), content["embedding_size"])


def structure_of(smaller: nn.Module, original: nn.Module) -> Structure:
    """Return how a network differs from the one that it was made from.

    Args:
        smaller: pruned, integers, or both.
        original: as its architecture builds it.
    """
    body = smaller.network if isinstance(smaller, Quantized) else smaller
    assert isinstance(body, nn.Module)
    layers = dict(body.named_modules())
    before = {name: t.shape for name, t in _tensors(original).items()}
    sizes: dict[str, dict[str, Any]] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    bits: dict[str, int] = {}
    folded: list[str] = []
    for name, module in original.named_modules():
        mine = layers[name]
        own = _attributes(module)
        if isinstance(mine, QuantizedLayer):
            bits[name] = mine.bits
            now = mine.sizes
            if mine.shape != before[f"{name}.weight"]:
                shapes[f"{name}.weight"] = mine.shape
        elif isinstance(mine, nn.Identity) and not isinstance(module, nn.Identity):
            folded.append(name)
            continue
        else:
            now = _attributes(mine)
        changed = {key: value for key, value in now.items() if own.get(key) != value}
        if changed:
            sizes[name] = changed
    for name, tensor in _tensors(body).items():
        if name in before and tensor.shape != before[name]:
            shapes[name] = tuple(tensor.shape)
    return Structure(sizes, shapes, bits, tuple(folded), int(body.embedding_size))  # type: ignore[arg-type]


def rebuilt(original: nn.Module, structure: Structure) -> nn.Module:
    """Return the smaller network, its parameters still to be loaded; changes `original`.

    Args:
        original: as its architecture builds it.
        structure: of the smaller one.

    Raises:
        ValueError: the structure belongs to another network.
    """
    layers = dict(original.named_modules())
    for name, sizes in structure.sizes.items():
        module = layers.get(name)
        if module is None or {*sizes} - {*_attributes(module)}:
            raise ValueError(f"the network has no such layer '{name}'")
        for key, value in sizes.items():
            setattr(module, key, value)
    tensors = _tensors(original)
    for name, shape in structure.shapes.items():
        if name not in tensors or len(shape) != tensors[name].dim():
            raise ValueError(f"the network has no such parameter '{name}'")
        if any(not 0 < n <= most for n, most in zip(shape, tensors[name].shape, strict=True)):
            raise ValueError(f"'{name}' is {list(shape)}, larger than in the network")
        path, _, own = name.rpartition(".")
        module = layers[path]
        new = torch.zeros(shape, dtype=tensors[name].dtype, device=tensors[name].device)
        if own in module._parameters:
            setattr(module, own, nn.Parameter(new))
        else:
            module._buffers[own] = new
    if structure.embedding_size:
        original.embedding_size = structure.embedding_size  # type: ignore[assignment]
    for name in structure.folded:
        _put(original, layers, name, nn.Identity())
    for name, bits in structure.bits.items():
        layer = layers.get(name)
        if layer is None or not quantizable(layer):
            raise ValueError(f"the network has no layer '{name}' that can be integers")
        # What is folded into a layer gives it a bias.
        _put(original, layers, name, QuantizedLayer(layer, bits).frozen())
    return Quantized(original) if structure.bits else original


def _put(network: nn.Module, layers: Mapping[str, nn.Module], name: str, new: nn.Module) -> None:
    path, _, own = name.rpartition(".")
    if name not in layers or not own:
        raise ValueError(f"the network has no such layer '{name}'")
    setattr(layers[path] if path else network, own, new)


def _attributes(module: nn.Module) -> dict[str, Any]:
    """Return the sizes that a layer of PyTorch's says of itself."""
    if not module._parameters and not module._buffers:
        return {}
    found = {name: getattr(module, name) for name in SIZES if hasattr(module, name)}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in found.items()}


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


def _sizes(found: Any) -> dict[str, Any]:
    if not isinstance(found, Mapping) or {*found} - {*SIZES}:
        raise ValueError("the structure's 'sizes' are no sizes of layers")
    for value in found.values():
        if isinstance(value, list):
            _numbers(value)
        elif type(value) is not int or value < 1:
            raise ValueError("the structure's 'sizes' are no numbers")
    return {k: tuple(v) if isinstance(v, list) else v for k, v in found.items()}


def _numbers(found: Any) -> tuple[int, ...]:
    if not isinstance(found, list | tuple) or not all(type(n) is int and n > 0 for n in found):
        raise ValueError("the structure's 'shapes' are no lists of sizes")
    return tuple(found)
