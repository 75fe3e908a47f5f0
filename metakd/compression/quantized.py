"""Layers that compute in integers, as they are simulated, saved and exported.

Weights are symmetric integers with a scale for each output channel, activations 8-bit integers
with one scale and zero point for all of a tensor (Jacob et al., 2018). In PyTorch products are of
the real numbers that the integers stand for, which gives what integer arithmetic gives up to
float32's rounding; in an ONNX graph the same layers are `QuantizeLinear` and `DequantizeLinear`
nodes around the convolution or product, which runtimes turn into integer kernels.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metakd.compression.strategy import FLOAT
from metakd.models.small_maps import Conv3x3

__all__ = ["ActivationRange", "Quantized", "QuantizedLayer", "quantizable"]

LEAST, MOST = -128, 127
"""Of an activation."""
PACKED = 4
"""From this many bits down two weights share a byte."""


def quantizable(layer: nn.Module) -> bool:
    """Tell whether a layer can be integers: a convolution or a linear layer."""
    return type(layer) in (nn.Conv1d, nn.Conv2d, Conv3x3, nn.Linear)


class ActivationRange(nn.Module):
    """Rounds a tensor to 8-bit integers, with one scale and zero point.

    While it observes it rounds nothing and takes up the smallest and largest values, the mean of
    the batches' ones.
    """

    scale: Tensor
    zero_point: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("zero_point", torch.zeros((), dtype=torch.int8))
        self._seen: list[tuple[float, float]] = []
        self.observing = False

    def forward(self, x: Tensor) -> Tensor:
        """Return what the integers stand for; same shape, float32."""
        if self.observing:
            self._seen.append((float(x.min()), float(x.max())))
            return x
        if torch.onnx.is_in_onnx_export():
            arguments = (self.scale, self.zero_point)
            integers = torch.onnx.ops.symbolic(
                "QuantizeLinear", (x, *arguments), dtype=torch.int8, shape=x.shape
            )
            return torch.onnx.ops.symbolic(
                "DequantizeLinear", (integers, *arguments), dtype=torch.float32, shape=x.shape
            )
        if torch.is_grad_enabled() and x.requires_grad:
            return torch.fake_quantize_per_tensor_affine(
                x, self.scale, self.zero_point.to(torch.int32), LEAST, MOST
            )
        zero = self.zero_point.to(x.dtype)
        # Over tasks at once PyTorch has no `clamp_`: it goes one by one and warns of it.
        whole = (x / self.scale).round_().add_(zero).clamp(LEAST, MOST)
        return whole.sub_(zero).mul_(self.scale)

    def settle(self) -> None:
        """Take scale and zero point from what was observed; 0 has an integer of its own.

        Raises:
            ValueError: a value is not finite.
        """
        self.observing = False
        if not self._seen:
            return
        low = min(0.0, sum(s for s, _ in self._seen) / len(self._seen))
        high = max(0.0, sum(s for _, s in self._seen) / len(self._seen))
        if not math.isfinite(high - low):
            raise ValueError("an activation is not finite")
        self._seen = []
        scale = max((high - low) / (MOST - LEAST), 1e-12)
        self.scale.fill_(scale)
        self.zero_point.fill_(max(LEAST, min(MOST, round(LEAST - low / scale))))


class QuantizedLayer(nn.Module):
    """A convolution or linear layer of integer weights, on integer inputs.

    It begins with the weights of `layer` as parameters, rounded at each pass (the gradient takes
    no notice of it, so that it can be trained); `frozen` keeps the integers alone.

    Args:
        layer: what it takes the place of.
        bits: of the weights.
    """

    weight: nn.Parameter | None
    bias: nn.Parameter | None
    integers: Tensor
    scales: Tensor
    zeros: Tensor

    def __init__(self, layer: nn.Module, bits: int) -> None:
        super().__init__()
        assert isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Linear) and bits < FLOAT
        self.bits = bits
        weight = layer.weight.detach()
        self.weight = nn.Parameter(weight.clone(memory_format=torch.contiguous_format))
        bias = weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.detach()
        self.bias = nn.Parameter(bias.clone())
        self.shape = tuple(weight.shape)
        self.register_buffer("scales", weight.new_ones(len(weight)))
        self.register_buffer("zeros", torch.zeros(len(weight), dtype=torch.int8), persistent=False)
        self.register_buffer("integers", torch.zeros(0, dtype=torch.int8))
        self.to(weight.device)
        self.input, self.output = ActivationRange(), ActivationRange()
        self.input.to(weight.device)
        self.output.to(weight.device)
        self.convolves = not isinstance(layer, nn.Linear)
        names: tuple[str, ...] = ("in_channels", "out_channels", "groups")
        if isinstance(layer, nn.Linear):
            names = ("in_features", "out_features")
            self._how: dict[str, Any] = {}
            self._pad: tuple[list[int], str] | None = None
        else:
            how = ("stride", "padding", "dilation", "groups")
            self._how = {name: getattr(layer, name) for name in how}
            self._pad = None
            if layer.padding_mode != "zeros":
                self._pad = (list(layer._reversed_padding_repeated_twice), layer.padding_mode)
                self._how["padding"] = 0
        self.sizes = {name: int(getattr(layer, name)) for name in names}

    @property
    def most(self) -> int:
        """The largest weight; the smallest is minus that."""
        return int(2 ** (self.bits - 1)) - 1

    @property
    def integer_weights(self) -> int:
        """How many weights there are; once frozen, they are no parameters of PyTorch's."""
        return math.prod(self.shape) if self.weight is None else 0

    def frozen(self) -> QuantizedLayer:
        """Keep the integers in place of the weights; return itself."""
        if self.weight is None:
            return self
        weight = self.weight.detach()
        self.scales.copy_(self._scales(weight))
        whole = torch.round(weight / self._beside(self.scales)).clamp(-self.most, self.most)
        self.integers = _packed(whole.to(torch.int8), self.bits)
        self.weight = None
        assert self.bias is not None
        self.bias.requires_grad_(False)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Return [n, outputs, ...] of [n, inputs, ...], float32."""
        with torch.autocast(x.device.type, enabled=False):
            x = self.input(x.float())
            if self._pad is not None:
                x = F.pad(x, *self._pad)
            weight = self._weight()
            if not self.convolves:
                return self.output(F.linear(x, weight, self.bias))
            convolution = F.conv2d if weight.dim() == 4 else F.conv1d
            return self.output(convolution(x, weight, self.bias, **self._how))

    def _weight(self) -> Tensor:
        if self.weight is not None:
            if self.input.observing:
                return self.weight
            scales = self._scales(self.weight.detach())
            return torch.fake_quantize_per_channel_affine(
                self.weight, scales, torch.zeros_like(scales).int(), 0, -self.most, self.most
            )
        whole = _unpacked(self.integers, self.bits, self.shape)
        if torch.onnx.is_in_onnx_export():
            return torch.onnx.ops.symbolic(
                "DequantizeLinear",
                (whole, self.scales, self.zeros),
                attrs={"axis": 0},
                dtype=torch.float32,
                shape=self.shape,
            )
        return whole.to(self.scales.dtype) * self._beside(self.scales)

    def _scales(self, weight: Tensor) -> Tensor:
        largest = weight.abs().flatten(1).amax(1)
        return (largest / self.most).clamp_min(1e-12)

    def _beside(self, scales: Tensor) -> Tensor:
        return scales.view(-1, *(1 for _ in self.shape[1:]))


class Quantized(nn.Module):
    """A backbone of which layers are integers, and whose embedding is rounded to integers, too.

    Args:
        network: the backbone.

    Attributes:
        embedding_size: numbers of an embedding.
        stage_paths: where its stages are.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.embedding = ActivationRange()
        tensor = next((t for t in (*network.parameters(), *network.buffers())), None)
        if tensor is not None:
            self.embedding.to(tensor.device)
        self.embedding_size = int(network.embedding_size)  # type: ignore[arg-type]
        if hasattr(network, "map_shape"):
            self.map_shape = network.map_shape
        paths = getattr(network, "stage_paths", None)
        if paths is not None:
            self.stage_paths = {name: f"network.{path}" for name, path in paths.items()}

    def forward(self, examples: Tensor) -> Tensor:
        """Return embeddings [n, embedding_size]."""
        embedded: Tensor = self.embedding(self.network(examples).float())
        return embedded


def _packed(whole: Tensor, bits: int) -> Tensor:
    """Return integers as they are saved: below five bits two of them in a byte."""
    if bits > PACKED:
        return whole
    flat = F.pad(whole.flatten() & 15, (0, whole.numel() % 2)).view(torch.uint8)
    return (flat[::2] | (flat[1::2] << 4)).view(torch.int8)


def _unpacked(integers: Tensor, bits: int, shape: tuple[int, ...]) -> Tensor:
    if bits > PACKED:
        return integers
    # In operations that ONNX has for integers of these kinds: no bytes seen as others.
    pairs = integers.to(torch.int32)
    low = ((pairs & 15) ^ 8) - 8
    high = pairs >> 4  # of signed integers: keeps the sign
    both = torch.stack([low, high], 1).flatten()[: math.prod(shape)]
    return both.to(torch.int8).view(shape)
