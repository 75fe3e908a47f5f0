"""What the residual networks share: their initial weights."""

from __future__ import annotations

from torch import nn

__all__ = ["he_initialise"]


def he_initialise(module: nn.Module, slope: float = 0.0) -> None:
    """Draw every convolution's weights from He's normal distribution (He et al. 2015).

    The variance is 2 over the fan out: k² times the output channels that an input channel reaches.
    In a convolution of g groups these are 1/g of all, so a depthwise filter has a fan of k².

    Args:
        module: the network; torch's default generator decides the numbers.
        slope: negative slope of the (leaky) ReLU that follows.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            # torch takes all output channels for the fan, whatever the groups are.
            for group in layer.weight.chunk(layer.groups):
                nn.init.kaiming_normal_(group, a=slope, mode="fan_out", nonlinearity="leaky_relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
